// Attention against softmax(q k' / sqrt(d) + mask) v written out in fp64 for each document, and
// autograd.
#include "nn/attention.hpp"

#include <limits>

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

std::vector<std::int32_t> ends_of(const std::vector<std::int32_t>& lengths) {
  std::vector<std::int32_t> ends;
  std::int32_t end = 0;
  for (const auto length : lengths) {
    ends.push_back(end += length);
  }
  return ends;
}

at::Tensor formula(const at::Tensor& qkv, const AttentionShape& shape,
                   const std::vector<std::int32_t>& lengths) {
  std::vector<at::Tensor> parts;
  std::int64_t first = 0;
  for (const auto length : lengths) {
    const auto document = qkv.narrow(0, first, length);
    first += length;
    const auto heads_of = [&](std::int64_t head, std::int64_t count) {
      return document.narrow(1, head * shape.head_dim, count * shape.head_dim)
          .reshape({length, count, shape.head_dim})
          .transpose(0, 1);
    };
    const auto shared = shape.heads / shape.kv_heads;
    const auto q = heads_of(0, shape.heads);
    const auto k = heads_of(shape.heads, shape.kv_heads).repeat_interleave(shared, 0);
    const auto v =
        heads_of(shape.heads + shape.kv_heads, shape.kv_heads).repeat_interleave(shared, 0);
    auto scores = at::matmul(q, k.transpose(1, 2)) / std::sqrt(double(shape.head_dim));
    auto hidden = at::zeros({length, length}, at::kBool);
    for (std::int64_t i = 0; i < length; ++i) {
      for (std::int64_t j = 0; j < length; ++j) {
        hidden[i][j] = j > i || (shape.window && j <= i - *shape.window);
      }
    }
    scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
    parts.push_back(at::matmul(scores.softmax(-1), v)
                        .transpose(0, 1)
                        .reshape({length, shape.heads * shape.head_dim}));
  }
  return at::cat(parts, 0);
}

struct Case {
  AttentionShape shape;
  std::vector<std::int32_t> lengths;
};

testing::Message describe(const Case& c) {
  testing::Message text;
  text << c.shape.heads << "/" << c.shape.kv_heads << " heads of " << c.shape.head_dim
       << ", window " << c.shape.window.value_or(0) << ", documents";
  for (const auto length : c.lengths) {
    text << " " << length;
  }
  return text;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& [heads, kv_heads, dim] :
       std::vector<std::tuple<int, int, int>>{{1, 1, 2}, {4, 4, 6}, {4, 2, 8}, {6, 1, 16}}) {
    for (const auto& window : {std::optional<std::int64_t>(), std::optional<std::int64_t>(1),
                               std::optional<std::int64_t>(3), std::optional<std::int64_t>(100)}) {
      for (const auto& lengths :
           std::vector<std::vector<std::int32_t>>{{1}, {9}, {4, 4, 4}, {1, 7, 7, 2, 1, 5}}) {
        all.push_back({{heads, kv_heads, dim, window}, lengths});
      }
    }
  }
  // Several blocks of queries, and windows within, at and beyond their borders.
  for (const auto& window : {std::optional<std::int64_t>(), std::optional<std::int64_t>(33),
                             std::optional<std::int64_t>(64), std::optional<std::int64_t>(100)}) {
    all.push_back({{4, 2, 20, window}, {65, 1, 32, 200, 33}});
  }
  return all;
}

TEST(AttentionTest, ForwardAndBackward) {
  for (const auto& c : cases()) {
    SCOPED_TRACE(describe(c));
    const auto ends = ends_of(c.lengths);
    const auto runs = attention_runs(ends);
    const auto width = (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim;
    const auto qkv = noise({ends.back(), width}, 1, 2.0);
    const auto grad = noise({ends.back(), c.shape.heads * c.shape.head_dim}, 2);
    const auto qkv64 = leaf64(qkv);
    const auto expected = formula(qkv64, c.shape, c.lengths);
    AttentionSaved saved;
    const auto out = attention(qkv, c.shape, runs, &saved);
    expect_close(out, expected, 1e-5, "output");
    EXPECT_FALSE(out.requires_grad());
    expect_close(attention(qkv, c.shape, runs, nullptr), expected, 1e-5, "without saving");
    expect_close(attention_backward(grad, c.shape, runs, saved),
                 autograd_of(expected, grad, {qkv64})[0], 1e-5, "gradient");
  }
}

TEST(AttentionTest, RunsJoinNeighboursOfOneLength) {
  const auto runs = attention_runs(ends_of({4, 4, 4, 1, 4, 2, 2}));
  ASSERT_EQ(runs.size(), 4U);
  const std::vector<std::array<std::int64_t, 3>> expected = {
      {0, 3, 4}, {12, 1, 1}, {13, 1, 4}, {17, 2, 2}};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ((std::array{runs[i].first_token, runs[i].documents, runs[i].length}), expected[i]);
  }
  EXPECT_TRUE(attention_runs({}).empty());
}

TEST(AttentionTest, DocumentsAndFutureAreInvisible) {
  const AttentionShape shape{2, 1, 4, std::nullopt};
  const auto runs = attention_runs(ends_of({5, 3}));
  const auto qkv = noise({8, 16}, 1);
  const auto before = attention(qkv, shape, runs, nullptr);
  auto changed = qkv.clone();
  changed.select(0, 3).add_(1.0);  // token 3 of the first document
  const auto after = attention(changed, shape, runs, nullptr);
  EXPECT_TRUE(same_bits(after.narrow(0, 0, 3), before.narrow(0, 0, 3)));
  EXPECT_TRUE(same_bits(after.narrow(0, 5, 3), before.narrow(0, 5, 3)));
  EXPECT_FALSE(same_bits(after.narrow(0, 3, 2), before.narrow(0, 3, 2)));
}

// In whatever company.
TEST(AttentionTest, ADocumentsBitsAreItsOwn) {
  const AttentionShape shape{4, 2, 20, std::nullopt};
  const auto qkv = noise({300, 160}, 1);
  const auto grad = noise({300, 80}, 2);
  AttentionSaved saved, saved_alone;
  const auto runs = attention_runs(ends_of({70, 100, 130}));
  const auto alone = attention_runs(ends_of({100}));
  const auto part = [](const at::Tensor& x) { return x.narrow(0, 70, 100); };
  EXPECT_TRUE(same_bits(part(attention(qkv, shape, runs, &saved)),
                        attention(part(qkv), shape, alone, &saved_alone)));
  EXPECT_TRUE(same_bits(part(attention_backward(grad, shape, runs, saved)),
                        attention_backward(part(grad), shape, alone, saved_alone)));
}

TEST(AttentionTest, OtherTypesGoThroughTorch) {
  const AttentionShape shape{4, 2, 6, 3};
  const std::vector<std::int32_t> lengths = {5, 5, 9};
  const auto runs = attention_runs(ends_of(lengths));
  const auto qkv = leaf64(noise({19, 48}, 1, 2.0));
  const auto grad = noise({19, 24}, 2).to(at::kDouble);
  const auto expected = formula(qkv, shape, lengths);
  AttentionSaved saved;
  expect_close(attention(qkv.detach(), shape, runs, &saved), expected, 1e-12);
  EXPECT_FALSE(saved.qkv.defined());
  expect_close(attention_backward(grad, shape, runs, saved), autograd_of(expected, grad, {qkv})[0],
               1e-12);
}

// bf16 has 8 bits: what is rounded to it (weights of keys and their gradients on some CPUs, results
// on all) is off by up to 2^-9 of its size.
TEST(AttentionTest, SixteenBit) {
  auto all = cases();
  all.push_back({{4, 2, 3, 4}, {6, 6, 3}});  // a head that is no whole number of pairs
  for (const auto& c : all) {
    SCOPED_TRACE(describe(c));
    const auto ends = ends_of(c.lengths);
    const auto runs = attention_runs(ends);
    const auto width = (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim;
    const auto qkv = noise({ends.back(), width}, 1, 2.0).to(at::kBFloat16);
    const auto grad = noise({ends.back(), c.shape.heads * c.shape.head_dim}, 2).to(at::kBFloat16);
    const auto qkv64 = leaf64(qkv);
    const auto expected = formula(qkv64, c.shape, c.lengths);
    AttentionSaved saved;
    const auto out = attention(qkv, c.shape, runs, &saved);
    EXPECT_EQ(out.scalar_type(), at::kBFloat16);
    expect_close(out, expected, 1e-2);
    expect_close(attention_backward(grad, c.shape, runs, saved),
                 autograd_of(expected, grad, {qkv64})[0], 1e-2);
  }
}

}  // namespace
}  // namespace lorascale::nn
