// Attention without a mask against softmax(q k' / sqrt(d)) v in fp64, and autograd; q, k and v as
// parts of wider rows.
#include "nn/cross_attention.hpp"

#include <cmath>

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;

at::Tensor formula(const at::Tensor& q, const at::Tensor& kv, const CrossAttentionShape& shape) {
  const auto width = shape.heads * shape.head_dim;
  const auto heads_of = [&](const at::Tensor& rows, std::int64_t tokens) {
    return rows.reshape({shape.samples, tokens, shape.heads, shape.head_dim}).transpose(1, 2);
  };
  const auto k = heads_of(kv.narrow(1, 0, width), shape.keys);
  const auto v = heads_of(kv.narrow(1, width, width), shape.keys);
  const auto scores =
      at::matmul(heads_of(q, shape.queries), k.transpose(2, 3)) / std::sqrt(double(shape.head_dim));
  return at::matmul(scores.softmax(-1), v)
      .transpose(1, 2)
      .reshape({shape.samples * shape.queries, width});
}

void check(const CrossAttentionShape& shape, at::ScalarType type, double tolerance) {
  const auto width = shape.heads * shape.head_dim;
  const auto q =
      noise({shape.samples * shape.queries, width + 3}, 1, 2.0).to(type).narrow(1, 2, width);
  const auto kv =
      noise({shape.samples * shape.keys, 2 * width + 5}, 2, 2.0).to(type).narrow(1, 1, 2 * width);
  const auto grad = noise({shape.samples * shape.queries, width}, 3).to(type);
  const auto q64 = leaf64(q), kv64 = leaf64(kv);
  const auto expected = formula(q64, kv64, shape);
  CrossAttentionSaved saved;
  expect_close(cross_attention(q, kv, shape, &saved), expected, tolerance, "output");
  const auto gradients = autograd_of(expected, grad, {q64, kv64});
  auto dq = at::zeros({q.size(0), width + 1}, q.options());
  auto dkv = at::zeros_like(kv);
  cross_attention_backward(grad, shape, saved, dq.narrow(1, 1, width), dkv);
  expect_close(dq.narrow(1, 1, width), gradients[0], tolerance, "queries");
  expect_close(dkv, gradients[1], tolerance, "keys and values");
  EXPECT_FALSE(saved.q.defined());
}

TEST(CrossAttentionTest, ForwardAndBackward) {
  for (const auto& shape : {CrossAttentionShape{1, 1, 1, 1, 2}, CrossAttentionShape{2, 9, 9, 2, 8},
                            CrossAttentionShape{3, 35, 77, 4, 40}}) {
    check(shape, at::kFloat, 1e-5);
    check(shape, at::kDouble, 1e-12);
    check(shape, at::kBFloat16, 2e-2);
  }
}

TEST(CrossAttentionTest, KeysMayNeedNoGradient) {
  const CrossAttentionShape shape{2, 5, 7, 2, 4};
  const auto q = noise({10, 8}, 1), kv = noise({14, 16}, 2), grad = noise({10, 8}, 3);
  CrossAttentionSaved saved, again;
  cross_attention(q, kv, shape, &saved);
  cross_attention(q, kv, shape, &again);
  auto dq = at::zeros_like(q), dq_alone = at::zeros_like(q);
  cross_attention_backward(grad, shape, saved, dq, at::zeros_like(kv));
  cross_attention_backward(grad, shape, again, dq_alone, {});
  EXPECT_TRUE(test::same_bits(dq, dq_alone));
}

}  // namespace
}  // namespace lorascale::nn
