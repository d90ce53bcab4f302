#include "nn/cross_attention.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>
#include <vector>

#include "nn/cpu_attention.hpp"
#include "nn/cpu_rows.hpp"

namespace lorascale::nn {
namespace {

bool has_cpu_kernels(const at::Tensor& q, const at::Tensor& kv) {
  return nn::has_cpu_kernels(q) && nn::has_cpu_kernels(kv);
}

// Part [first, + heads * d) of rows as [samples, heads, tokens, head_dim].
at::Tensor heads_of(const at::Tensor& rows, std::int64_t first, std::int64_t tokens,
                    const CrossAttentionShape& shape) {
  return rows.narrow(1, first, shape.heads * shape.head_dim)
      .unflatten(0, {shape.samples, tokens})
      .unflatten(2, {shape.heads, shape.head_dim})
      .transpose(1, 2);
}

// By ATen's choice of kernels.
at::Tensor attend(const at::Tensor& q, const at::Tensor& kv, const CrossAttentionShape& shape) {
  const auto width = shape.heads * shape.head_dim;
  return at::scaled_dot_product_attention(heads_of(q, 0, shape.queries, shape),
                                          heads_of(kv, 0, shape.keys, shape),
                                          heads_of(kv, width, shape.keys, shape))
      .transpose(1, 2)
      .reshape({shape.samples * shape.queries, width});
}

}  // namespace

at::Tensor cross_attention(const at::Tensor& q, const at::Tensor& kv,
                           const CrossAttentionShape& shape, CrossAttentionSaved* saved) {
  if (has_cpu_kernels(q, kv)) {
    auto result = cpu_cross_attention(q, kv, shape);
    if (saved != nullptr) {
      *saved = {q, kv, result.out, result.log_sums};
    }
    return result.out;
  }
  if (saved == nullptr) {
    return attend(q, kv, shape);
  }
  const at::AutoGradMode record(true);
  const at::Tensor queries = q.detach().requires_grad_(true);
  const at::Tensor keys = kv.detach().requires_grad_(true);
  *saved = {queries, keys, attend(queries, keys, shape), {}};
  return saved->out.detach();
}

void cross_attention_backward(const at::Tensor& grad, const CrossAttentionShape& shape,
                              CrossAttentionSaved& saved, const at::Tensor& dq,
                              const at::Tensor& dkv) {
  const auto kept = std::exchange(saved, {});
  if (kept.log_sums.defined()) {
    cpu_cross_attention_backward(grad, kept.q, kept.kv, {kept.out, kept.log_sums}, shape, dq, dkv);
    return;
  }
  std::vector<at::Tensor> leaves = {kept.q};
  if (dkv.defined()) {
    leaves.push_back(kept.kv);
  }
  const auto gradients = torch::autograd::grad({kept.out}, leaves, {grad});
  dq.copy_(gradients[0]);
  if (dkv.defined()) {
    dkv.copy_(gradients[1]);
  }
}

}  // namespace lorascale::nn
