// Pictures out of captions: noise, a sampler's steps with classifier-free guidance (Ho & Salimans
// 2022), the autoencoder.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "models/diffusion/diffusion_model.hpp"
#include "models/diffusion/sampler.hpp"

namespace lorascale::models::diffusion {

struct PictureRequest {
  // [1, encoders, text_rows, positions] on the CPU. `negative` undefined: what is steered away from
  // is the model's own way of no prompt, zeros (SDXL) or `empty`.
  at::Tensor prompt, negative, empty;
  std::int64_t height = 512, width = 512;  // multiples of the autoencoder's factor
  SamplerKind sampler = SamplerKind::kDdim;
  std::int64_t steps = 20;
  double guidance = 7.5;  // 1: none
  std::uint64_t seed = 0;
};

// What the autoencoder makes a picture of, [1, channels, height, width] fp32, as the UNet sees it.
at::Tensor make_latents(const DiffusionModel& model, const PictureRequest& request);
// [height, width, 3] of bytes on the CPU. The same seed begins with the same noise on every
// machine.
at::Tensor make_picture(const DiffusionModel& model, const PictureRequest& request);

}  // namespace lorascale::models::diffusion
