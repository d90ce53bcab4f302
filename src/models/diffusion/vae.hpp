// The autoencoder of Stable Diffusion: pictures to latents and back. Names of the parameters are
// diffusers'. Encoder and decoder are chains of parts; forward and backward by hand.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "models/diffusion/unet_resnet.hpp"
#include "nn/cross_attention.hpp"

namespace lorascale::models::diffusion {

struct VaeConfig {
  std::int64_t in_channels = 3;
  std::int64_t latent_channels = 4;
  std::vector<std::int64_t> channels = {128, 256, 512, 512};  // from the finest to the coarsest map
  std::int64_t layers_per_level = 2;  // residual blocks of the encoder; one more in the decoder
  std::int64_t groups = 32;
  double scaling_factor = 0.18215;  // latents that the UNet sees are the mean times it

  // Pixels along a side of a latent.
  [[nodiscard]] std::int64_t factor() const { return std::int64_t{1} << (channels.size() - 1); }
};

// Self-attention over all positions of a map, one head.
class VaeAttention {
 public:
  struct Saved {
    nn::GroupNormSaved norm;
    nn::CrossAttentionSaved attention;
    at::Tensor attended;
    nn::DeltasSaved qkv, out;
  };
  VaeAttention(const std::string& prefix, std::int64_t channels, std::int64_t groups,
               const at::TensorOptions& options);

  at::Tensor forward(const at::Tensor& x, const nn::SampleRows* rows, Saved* saved) const;
  at::Tensor backward(const at::Tensor& dy, const nn::SampleRows* rows, Saved& saved,
                      bool need_dx) const;
  [[nodiscard]] bool trains() const { return norm_.trains() || qkv_.trains() || out_.trains(); }
  void add_sites(std::vector<nn::Site>& sites);
  void add_slots(std::vector<nn::ParameterSlot>& slots);

 private:
  nn::GroupNorm norm_;
  nn::LinearGroup qkv_, out_;
};

// A convolution, perhaps after the map's sides were doubled, or after one row and column of zeros
// were put below and to the right.
struct VaeConvolution {
  enum class Before { kNothing, kDouble, kPad };
  nn::Conv2d conv;
  Before before = Before::kNothing;
};

struct VaeNorm {  // and silu
  nn::GroupNorm norm;
};

class VaeChain {
 public:
  using Part = std::variant<VaeConvolution, ResnetBlock, VaeAttention, VaeNorm>;
  struct PartSaved {
    at::Tensor input;                 // of a convolution itself
    std::vector<std::int64_t> sizes;  // of the part's input
    nn::DeltasSaved conv;
    ResnetSaved resnet;
    VaeAttention::Saved attention;
    nn::GroupNormSaved norm;
  };

  std::vector<Part> parts;

  at::Tensor forward(at::Tensor x, std::vector<PartSaved>* saved) const;
  // Gradient of x, or nothing when it is not needed.
  at::Tensor backward(at::Tensor grad, std::vector<PartSaved>& saved, bool need_dx) const;
  [[nodiscard]] std::size_t first_trained() const;  // parts.size() where there is none
  void add_sites(std::vector<nn::Site>& sites);
  void add_slots(std::vector<nn::ParameterSlot>& slots);
};

class Vae {
 public:
  // Weights are allocated, not filled.
  Vae(const VaeConfig& config, const at::TensorOptions& options);

  [[nodiscard]] const VaeConfig& config() const { return config_; }
  [[nodiscard]] at::ScalarType dtype() const { return dtype_; }
  // pictures: [samples, in, height, width] in [-1, 1], sides multiples of factor(). Returns
  // [samples, 2 * latent, height / factor, width / factor]: mean, and log of the variance.
  at::Tensor encode(const at::Tensor& pictures, std::vector<VaeChain::PartSaved>* saved) const {
    return encoder_.forward(pictures, saved);
  }
  // latents: as encode()'s mean.
  at::Tensor decode(const at::Tensor& latents, std::vector<VaeChain::PartSaved>* saved) const {
    return decoder_.forward(latents, saved);
  }
  [[nodiscard]] const VaeChain& encoder() const { return encoder_; }
  [[nodiscard]] const VaeChain& decoder() const { return decoder_; }
  std::vector<nn::ParameterSlot> parameter_slots();

 private:
  VaeConfig config_;
  at::ScalarType dtype_;
  VaeChain encoder_, decoder_;
};

}  // namespace lorascale::models::diffusion
