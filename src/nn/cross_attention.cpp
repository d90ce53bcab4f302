#include "nn/cross_attention.hpp"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>

#include <utility>

namespace lorascale::nn {
namespace {

// Part [first, + heads * d) of rows as [samples, heads, tokens, head_dim].
at::Tensor heads_of(const at::Tensor& rows, std::int64_t first, std::int64_t tokens,
                    const CrossAttentionShape& shape) {
  return rows.narrow(1, first, shape.heads * shape.head_dim)
      .unflatten(0, {shape.samples, tokens})
      .unflatten(2, {shape.heads, shape.head_dim})
      .transpose(1, 2);
}

}  // namespace

at::Tensor cross_attention(const at::Tensor& q, const at::Tensor& kv,
                           const CrossAttentionShape& shape, CrossAttentionSaved* saved) {
  const auto width = shape.heads * shape.head_dim;
  auto [out, log_sums] = at::_scaled_dot_product_flash_attention_for_cpu(
      heads_of(q, 0, shape.queries, shape), heads_of(kv, 0, shape.keys, shape),
      heads_of(kv, width, shape.keys, shape));
  const at::Tensor rows = out.transpose(1, 2).reshape({shape.samples * shape.queries, width});
  if (saved != nullptr) {
    *saved = {q, kv, std::move(out), std::move(log_sums)};
  }
  return rows;
}

void cross_attention_backward(const at::Tensor& grad, const CrossAttentionShape& shape,
                              CrossAttentionSaved& saved, const at::Tensor& dq,
                              const at::Tensor& dkv) {
  const auto width = shape.heads * shape.head_dim;
  const auto kept = std::exchange(saved, {});
  const auto [query, key, value] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      heads_of(grad, 0, shape.queries, shape), heads_of(kept.q, 0, shape.queries, shape),
      heads_of(kept.kv, 0, shape.keys, shape), heads_of(kept.kv, width, shape.keys, shape),
      kept.out, kept.log_sums, /*dropout_p=*/0.0, /*is_causal=*/false);
  heads_of(dq, 0, shape.queries, shape).copy_(query);
  if (dkv.defined()) {
    heads_of(dkv, 0, shape.keys, shape).copy_(key);
    heads_of(dkv, width, shape.keys, shape).copy_(value);
  }
}

}  // namespace lorascale::nn
