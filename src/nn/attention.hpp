// Causal self-attention over documents that stand back to back (block-diagonal), with grouped-query
// heads and an optional sliding window. On CPUs in fp32 and bf16 by cpu_attention.hpp; elsewhere
// the kernel is ATen's scaled_dot_product_attention, whose best implementation for the device is
// chosen by ATen, and its backward is replayed through autograd, locally.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace lorascale::nn {

struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::optional<std::int64_t> window;  // token i sees j > i - window
};

// Runs of documents of one length, which go through the kernel together.
struct AttentionRun {
  std::int64_t first_token = 0;
  std::int64_t documents = 0;
  std::int64_t length = 0;
};
// `ends`: where each document ends, ascending; the first begins at 0.
std::vector<AttentionRun> attention_runs(std::span<const std::int32_t> ends);

// What the backward needs. Dropped after use.
struct AttentionSaved {
  at::Tensor qkv, out, log_sums;    // on CPUs (cpu_attention.hpp)
  std::vector<at::Tensor> inputs;   // elsewhere: [runs] joint q|k|v leaves of the local graph
  std::vector<at::Tensor> outputs;  // [runs]
};

// qkv: [tokens, (heads + 2 kv_heads) * head_dim], rotated. Returns [tokens, heads * head_dim].
// With `saved`, keeps what attention_backward needs.
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape,
                     std::span<const AttentionRun> runs, AttentionSaved* saved);

// Gradient of qkv, shaped like it.
at::Tensor attention_backward(const at::Tensor& grad, const AttentionShape& shape,
                              std::span<const AttentionRun> runs, AttentionSaved& saved);

}  // namespace lorascale::nn
