// Attention of every query of a sample to every key of it: within a picture, or from a picture to
// its caption. No mask.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lorascale::nn {

struct CrossAttentionShape {
  std::int64_t samples = 0;
  std::int64_t queries = 0;  // of a sample
  std::int64_t keys = 0;     // of a sample
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;
};

// What the backward needs. Dropped after use.
struct CrossAttentionSaved {
  at::Tensor q, kv;
  at::Tensor out, log_sums;  // the latter of the CPU's own kernels alone
};

// q: [samples * queries, heads * head_dim]; kv: [samples * keys, 2 * heads * head_dim], keys before
// values. Either may be a part of wider rows. Returns [samples * queries, heads * head_dim].
at::Tensor cross_attention(const at::Tensor& q, const at::Tensor& kv,
                           const CrossAttentionShape& shape, CrossAttentionSaved* saved);

// Gradients of q and kv, written to tensors of their shapes; dkv may be undefined.
void cross_attention_backward(const at::Tensor& grad, const CrossAttentionShape& shape,
                              CrossAttentionSaved& saved, const at::Tensor& dq,
                              const at::Tensor& dkv);

}  // namespace lorascale::nn
