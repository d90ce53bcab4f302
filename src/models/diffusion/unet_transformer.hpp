// The transformer of a UNet's level: each position of a map is a token that sees all positions of
// its picture (attn1) and the words of its caption (attn2). Names of the parameters are diffusers'.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "nn/cross_attention.hpp"
#include "nn/group_norm.hpp"
#include "nn/layer_norm.hpp"
#include "nn/linear_group.hpp"
#include "nn/parameter_slot.hpp"
#include "nn/site.hpp"

namespace lorascale::models::diffusion {

struct TransformerShape {
  std::int64_t channels = 0;
  std::int64_t heads = 8;
  std::int64_t context = 768;  // width of a caption's tokens
  std::int64_t depth = 1;      // blocks
  std::int64_t groups = 32;
};

struct TransformerBlockSaved {
  nn::LayerNormSaved norm1, norm2, norm3;
  nn::CrossAttentionSaved self, cross;
  at::Tensor attended_self, attended_cross;  // [tokens, channels]
  at::Tensor joint;                          // [tokens, 8 * channels], before GEGLU
  nn::DeltasSaved qkv, self_out, q, kv, cross_out, up, down;
};

class TransformerBlock {
 public:
  // Rows that draws of tokens and of words follow from; null outside training.
  struct Draws {
    const nn::SampleRows* tokens = nullptr;
    const nn::SampleRows* words = nullptr;
  };
  TransformerBlock(const std::string& prefix, const TransformerShape& shape,
                   const at::TensorOptions& options);

  // x: [samples * positions, channels]; context: [samples * words, width].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& context, std::int64_t samples,
                     const Draws& draws, TransformerBlockSaved* saved) const;
  // Gradient of x. `grad` is consumed; where `dcontext` is defined, the context's is added to it.
  at::Tensor backward(at::Tensor grad, const at::Tensor& context, std::int64_t samples,
                      const Draws& draws, TransformerBlockSaved& saved, at::Tensor& dcontext) const;

  std::vector<nn::LinearGroup*> linears() {
    return {&qkv_, &self_out_, &q_, &kv_, &cross_out_, &up_, &down_};
  }
  [[nodiscard]] bool trains() const;
  void add_slots(std::vector<nn::ParameterSlot>& slots);

 private:
  [[nodiscard]] nn::CrossAttentionShape attention(std::int64_t samples, std::int64_t queries,
                                                  std::int64_t keys) const;

  std::int64_t heads_;
  nn::LayerNorm norm1_, norm2_, norm3_;
  nn::LinearGroup qkv_, self_out_, q_, kv_, cross_out_, up_, down_;
};

struct TransformerSaved {
  nn::GroupNormSaved norm;
  at::Tensor inner;  // [tokens, channels]: what comes out of the blocks
  std::vector<TransformerBlockSaved> blocks;
  nn::DeltasSaved in, out;
};

// Norm, a projection, blocks, a projection, and what went in. Projections are linear; checkpoints
// of SD 1 hold them as 1 x 1 convolutions.
class Transformer {
 public:
  Transformer(const std::string& prefix, const TransformerShape& shape,
              const at::TensorOptions& options);

  // x: [samples, channels, height, width]; context: [samples, words, width]; rows: one a sample.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& context, const nn::SampleRows* rows,
                     TransformerSaved* saved) const;
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& context, const nn::SampleRows* rows,
                      TransformerSaved& saved, bool need_dx, at::Tensor& dcontext) const;

  [[nodiscard]] bool trains() const;
  void add_sites(std::vector<nn::Site>& sites);
  void add_slots(std::vector<nn::ParameterSlot>& slots);

 private:
  nn::GroupNorm norm_;
  nn::LinearGroup in_, out_;
  std::vector<TransformerBlock> blocks_;
};

}  // namespace lorascale::models::diffusion
