// Attention of attention.hpp on CPUs, for fp32 and bf16: a block of queries at a time against the
// keys that it sees, in fp32, within a core's cache, so that nothing of [length, length] is ever
// held and nothing beyond the diagonal's blocks is computed (Dao et al. 2022, without the online
// softmax: a block's scores are whole rows). A document's result depends on it alone.
#pragma once

#include "nn/attention.hpp"

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

}  // namespace lorascale::nn
