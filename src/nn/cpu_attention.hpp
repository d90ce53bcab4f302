// Attention of attention.hpp and cross_attention.hpp on CPUs, for fp32 and bf16: a block of queries
// at a time against the keys that it sees, in fp32, within a core's cache, so that nothing of
// [length, length] is ever held and nothing beyond the diagonal's blocks is computed (Dao et al.
// 2022, without the online softmax: a block's scores are whole rows). A document's result depends
// on it alone.
#pragma once

#include "nn/attention.hpp"
#include "nn/cross_attention.hpp"

namespace lorascale::nn {

struct CpuAttention {
  at::Tensor out;       // [tokens, heads * head_dim], of qkv's type
  at::Tensor log_sums;  // fp32 [heads, tokens]: of each row of softmax, log of its sum of exp
};

// has_cpu_kernels(qkv).
CpuAttention cpu_attention(const at::Tensor& qkv, const AttentionShape& shape,
                           std::span<const AttentionRun> runs);

// Gradient of qkv, shaped like it.
at::Tensor cpu_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                  const CpuAttention& forward, const AttentionShape& shape,
                                  std::span<const AttentionRun> runs);

// Of every query of a sample to every key of it; has_cpu_kernels(q) and (kv). Gradients are written
// to tensors shaped like q and kv; dkv may be undefined.
CpuAttention cpu_cross_attention(const at::Tensor& q, const at::Tensor& kv,
                                 const CrossAttentionShape& shape);
void cpu_cross_attention_backward(const at::Tensor& grad, const at::Tensor& q, const at::Tensor& kv,
                                  const CpuAttention& forward, const CrossAttentionShape& shape,
                                  const at::Tensor& dq, const at::Tensor& dkv);

}  // namespace lorascale::nn
