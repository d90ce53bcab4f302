// One decoder block, the unit of forward and backward. What the backward needs is kept in
// BlockSaved: inputs of the norms, the rotated q|k|v, the attention's own state, gate|up and the
// adapters' low-rank products; norms and SwiGLU are computed again. Nothing of the base's weights
// needs a gradient unless all weights are trained.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "models/decoder/config.hpp"
#include "nn/attention.hpp"
#include "nn/linear_group.hpp"
#include "nn/rope.hpp"

namespace lorascale::models::decoder {

// Per leaf, shared by all blocks.
struct BlockContext {
  std::vector<nn::AttentionRun> runs;
  nn::RopeTables rope;
  const nn::SampleRows* rows = nullptr;  // in training: what draws follow from
};

// RMSNorm over each head of q or k (Qwen3).
struct HeadNorm {
  at::Tensor weight;  // [head_dim], undefined where the family has none
  at::Tensor weight_grad;
};
struct HeadNormSaved {
  at::Tensor input;  // [tokens * heads, head_dim]
  at::Tensor rstd;
};

struct BlockSaved {
  at::Tensor input;  // [tokens, hidden]
  at::Tensor input_rstd;
  HeadNormSaved q, k;
  nn::AttentionSaved attention;
  at::Tensor attended;  // [tokens, heads * head_dim]
  at::Tensor middle;    // [tokens, hidden] after attention and residual
  at::Tensor middle_rstd;
  at::Tensor gate_up;  // [tokens, 2 * intermediate]
  nn::DeltasSaved qkv_saved, o_saved, gate_up_saved, down_saved;
};

// Keys and values of the tokens seen so far, for generation.
struct KeyValueCache {
  at::Tensor keys;  // [capacity, kv_heads, head_dim], rotated
  at::Tensor values;
  std::int64_t length = 0;
};

class Block {
 public:
  Block(const DecoderConfig& config, std::int64_t layer);

  at::Tensor input_norm, input_norm_grad;    // [hidden]
  at::Tensor middle_norm, middle_norm_grad;  // [hidden]
  HeadNorm q_norm, k_norm;
  nn::LinearGroup qkv, o, gate_up, down;

  // x: [tokens, hidden]. With `saved`, keeps what backward needs.
  at::Tensor forward(const at::Tensor& x, const BlockContext& context, BlockSaved* saved) const;
  // Gradient of the block's input, or nothing when it is not needed. `grad` is consumed.
  at::Tensor backward(at::Tensor grad, const BlockContext& context, BlockSaved& saved,
                      bool need_input_grad);
  // Forward of new tokens of one sequence, which see the cache and are added to it.
  at::Tensor decode(const at::Tensor& x, const nn::RopeTables& rope, KeyValueCache& cache) const;
  // Elements that the deltas of adapters keep for each token.
  [[nodiscard]] std::int64_t kept_width() const;
  // True where the block has parameters of its own to train.
  [[nodiscard]] bool trains() const;

 private:
  [[nodiscard]] at::Tensor mlp(const at::Tensor& middle, const BlockContext& context,
                               BlockSaved* saved) const;
  void norm_heads(at::Tensor& qkv, const HeadNorm& norm, std::int64_t first_head,
                  std::int64_t heads, HeadNormSaved* saved) const;
  void norm_heads_backward(at::Tensor& dqkv, const HeadNorm& norm, std::int64_t first_head,
                           std::int64_t heads, const HeadNormSaved& saved) const;
  at::Tensor backward_mlp(at::Tensor grad, const BlockContext& context, BlockSaved& saved);

  nn::AttentionShape shape_;
  double eps_;
};

}  // namespace lorascale::models::decoder
