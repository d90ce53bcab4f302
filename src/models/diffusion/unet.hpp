// The UNet of Stable Diffusion: latents, a time and a caption's context to what of the latents is
// noise (or velocity). Names of the parameters are diffusers'. Forward and backward by hand.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/diffusion/unet_resnet.hpp"
#include "models/diffusion/unet_transformer.hpp"

namespace lorascale::models::diffusion {

struct UNetConfig {
  struct Level {
    std::int64_t channels = 320;
    std::int64_t depth = 1;  // of each transformer; 0: none
    std::int64_t heads = 8;
  };
  std::int64_t in_channels = 4;
  std::int64_t out_channels = 4;
  std::vector<Level> levels;          // from the finest to the coarsest map
  std::int64_t layers_per_level = 2;  // residual blocks on the way down; one more on the way up
  std::int64_t middle_depth = 1;
  std::int64_t context = 768;  // width of a caption's tokens
  std::int64_t groups = 32;
  std::int64_t addition = 0;     // width of what SDXL adds to the time; 0: nothing
  std::int64_t usual_side = 64;  // of the latents that it was made for

  [[nodiscard]] std::int64_t time_width() const { return 4 * levels.front().channels; }
};

// cos and sin of t at `width` / 2 frequencies from 1 to 1/10000: fp32 [samples, width].
at::Tensor time_embedding(const at::Tensor& t, std::int64_t width);

struct UNetSaved {
  struct Level {
    std::vector<ResnetSaved> resnets;
    std::vector<TransformerSaved> transformers;
    std::vector<at::Tensor> inputs;  // of layers that are computed again, which keep nothing else
    at::Tensor sampler_input;        // of the convolution that halves or doubles the map
    nn::DeltasSaved sampler;
    // On the way up: sides before they were doubled (as upsampling wants them), and of each
    // residual block's input the channels that come from below.
    std::vector<std::int64_t> before_sampler;
    std::vector<std::int64_t> widths;
  };
  at::Tensor latents;
  at::Tensor time_input, time_inner, time, added, added_inner;
  nn::DeltasSaved time1, time2, add1, add2, in, out;
  std::vector<Level> down, up;
  ResnetSaved middle1, middle2;
  TransformerSaved middle;
  at::Tensor middle_input;  // where the middle is computed again
  nn::GroupNormSaved norm;
};

class UNet {
 public:
  // Weights are allocated, not filled.
  UNet(const UNetConfig& config, const at::TensorOptions& options);

  [[nodiscard]] const UNetConfig& config() const { return config_; }
  // Whether a backward computes layers again from their inputs, where forward keeps no more.
  void set_recompute(bool recompute) { recompute_ = recompute; }
  [[nodiscard]] bool recomputes() const { return recompute_; }
  // latents: [samples, in, height, width]; t: fp32 [samples], perhaps between steps; context:
  // [samples, words, width]; added: [samples, addition], undefined without it. Returns
  // [samples, out, height, width]. With `saved`, keeps what backward needs.
  at::Tensor forward(const at::Tensor& latents, const at::Tensor& t, const at::Tensor& context,
                     const at::Tensor& added, const nn::SampleRows* rows, UNetSaved* saved) const;
  // Adds the gradients of what is trained; where `dcontext` is defined, the context's to it. With
  // `dadded`, that of what was added to the time.
  void backward(const at::Tensor& dy, const at::Tensor& context, const nn::SampleRows* rows,
                UNetSaved& saved, at::Tensor& dcontext, at::Tensor* dadded = nullptr) const;

  [[nodiscard]] at::Device device() const { return conv_in_.weight.device(); }
  [[nodiscard]] bool trains() const;
  std::vector<nn::Site> sites();
  std::vector<nn::ParameterSlot> parameter_slots();

 private:
  struct Level {
    std::vector<ResnetBlock> resnets;
    std::vector<Transformer> transformers;  // as many as resnets, or none
    std::optional<nn::Conv2d> sampler;
  };

  // What all layers take beside their input.
  struct Beside {
    const at::Tensor &time, &context;
    const nn::SampleRows* rows;
  };
  // A residual block and the transformer after it; the middle's three. With `keep`, they add what
  // their backward needs.
  static at::Tensor run_layer(const Level& level, std::size_t j, at::Tensor x, const Beside& beside,
                              UNetSaved::Level* keep);
  at::Tensor run_middle(at::Tensor x, const Beside& beside, UNetSaved* saved) const;
  // A residual block from `in` channels on, and the transformer after it where the level has any.
  void add_layer(Level& made, const std::string& prefix, std::int64_t in,
                 const UNetConfig::Level& level, const at::TensorOptions& options) const;
  void make_down(const at::TensorOptions& options);
  void make_up(const at::TensorOptions& options);
  [[nodiscard]] bool trains_time() const;
  [[nodiscard]] std::size_t parts() const;
  [[nodiscard]] std::size_t first_trained_part() const;  // parts() where there is none
  void backward_time(const at::Tensor& dtime, const nn::SampleRows* rows, const UNetSaved& saved,
                     at::Tensor* dadded) const;
  at::Tensor embed_time(const at::Tensor& t, const at::Tensor& added, const nn::SampleRows* rows,
                        UNetSaved* saved) const;

  UNetConfig config_;
  bool recompute_ = false;
  nn::Conv2d conv_in_, conv_out_;
  nn::LinearGroup time1_, time2_;
  std::optional<nn::LinearGroup> add1_, add2_;
  std::vector<Level> down_, up_;
  std::optional<ResnetBlock> middle1_, middle2_;
  std::optional<Transformer> middle_;
  nn::GroupNorm norm_;
};

}  // namespace lorascale::models::diffusion
