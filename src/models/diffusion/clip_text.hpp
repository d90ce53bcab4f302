// The text encoders of Stable Diffusion (CLIP, Radford et al. 2021): a causal transformer over rows
// of 77 tokens, padding included. Names of the parameters are transformers'. Forward and backward
// by hand; what of the layers is trained is up to adapters and slots.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "nn/activation.hpp"
#include "nn/attention.hpp"
#include "nn/layer_norm.hpp"
#include "nn/linear_group.hpp"
#include "nn/new_tokens.hpp"
#include "nn/parameter_slot.hpp"
#include "nn/site.hpp"

namespace lorascale::models::diffusion {

struct ClipTextConfig {
  std::int64_t vocabulary = 49408;
  std::int64_t positions = 77;  // tokens of a row
  std::int64_t hidden = 768;
  std::int64_t intermediate = 3072;
  std::int64_t layers = 12;
  std::int64_t heads = 12;
  nn::Activation activation = nn::Activation::kQuickGelu;
  std::int64_t projection = 0;  // width of the pooled output; 0: there is none
  std::int64_t end_token = 49407;
  double norm_eps = 1e-5;
};

struct ClipLayerSaved {
  nn::LayerNormSaved norm1, norm2;
  nn::AttentionSaved attention;
  at::Tensor attended;  // [rows * positions, hidden]
  at::Tensor inner;     // [rows * positions, intermediate], before the activation
  nn::DeltasSaved qkv, out, fc1, fc2;
};

class ClipLayer {
 public:
  ClipLayer(const ClipTextConfig& config, std::int64_t number, const at::TensorOptions& options);

  nn::LayerNorm norm1, norm2;
  nn::LinearGroup qkv, out, fc1, fc2;

  [[nodiscard]] bool trains() const;
  // x: [tokens, hidden].
  at::Tensor forward(const at::Tensor& x, const std::vector<nn::AttentionRun>& runs,
                     const nn::SampleRows* rows, ClipLayerSaved* saved) const;
  // Gradient of x. `grad` is consumed.
  at::Tensor backward(at::Tensor grad, const std::vector<nn::AttentionRun>& runs,
                      const nn::SampleRows* rows, ClipLayerSaved& saved) const;

  std::vector<nn::LinearGroup*> linears() { return {&qkv, &out, &fc1, &fc2}; }
  void add_slots(std::vector<nn::ParameterSlot>& slots);

 private:
  nn::AttentionShape shape_;
  nn::Activation activation_;
};

// What of the layers becomes the context that a UNet sees.
struct ContextChoice {
  std::int64_t skip = 1;   // output of the layer that is so many from the end: 1 is the last
  bool final_norm = true;  // SDXL has none there
};

struct ClipOutput {
  at::Tensor context;  // [rows, positions, hidden]
  at::Tensor pooled;   // [rows, projection], of the first end token; undefined without projection
};

struct ClipTextSaved {
  std::vector<ClipLayerSaved> layers;
  nn::LayerNormSaved context_norm, pooled_norm;
  at::Tensor ids, ends;  // [rows, positions], [rows]: places among all tokens
};

class ClipTextEncoder {
 public:
  // Weights are allocated, not filled. `prefix` opens the names of all parts.
  ClipTextEncoder(const ClipTextConfig& config, const at::TensorOptions& options);

  [[nodiscard]] const ClipTextConfig& config() const { return config_; }
  // ids: [rows, positions] of kLong, those behind the vocabulary of new_tokens(); `rows`: one for
  // each of them. With `saved`, keeps what backward needs; nothing is kept below the first layer
  // that trains.
  ClipOutput forward(const at::Tensor& ids, const ContextChoice& choice, const nn::SampleRows* rows,
                     ClipTextSaved* saved) const;
  // Adds the gradients of what is trained. dpooled may be undefined.
  void backward(const at::Tensor& dcontext, const at::Tensor& dpooled, const ContextChoice& choice,
                const nn::SampleRows* rows, ClipTextSaved& saved) const;

  [[nodiscard]] at::Device device() const { return tokens_.device(); }
  [[nodiscard]] bool trains() const {
    return first_trained() < layers_.size() || trains_embeddings();
  }
  std::vector<nn::Site> sites();
  std::vector<nn::ParameterSlot> parameter_slots();
  nn::NewTokens& new_tokens() { return new_tokens_; }
  // Takes new tokens, by the name of this encoder.
  nn::TokenTable token_table(const std::string& name) { return {name, tokens_, {}, &new_tokens_}; }

 private:
  [[nodiscard]] bool trains_tokens() const { return token_grad_.defined(); }
  [[nodiscard]] bool trains_embeddings() const {
    return trains_tokens() || new_tokens_.gradient.defined();
  }
  [[nodiscard]] std::size_t first_trained() const;
  [[nodiscard]] at::Tensor embeddings_of(const at::Tensor& ids) const;  // [tokens, hidden]

  ClipTextConfig config_;
  at::Tensor tokens_, token_grad_;  // [vocabulary, hidden]
  nn::NewTokens new_tokens_;
  at::Tensor positions_, position_grad_;  // [positions, hidden]
  std::vector<ClipLayer> layers_;
  nn::LayerNorm final_norm_;
  nn::LinearGroup projection_;
};

}  // namespace lorascale::models::diffusion
