// How a picture comes out of noise: a sampler asks the model at a few of the schedule's steps, from
// noise to picture, and moves the latents by what it tells. Equal to diffusers' schedulers of the
// same names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "models/diffusion/noise_schedule.hpp"

namespace lorascale::models::diffusion {

enum class SamplerKind {
  kDdim,            // Song et al. 2021, eta 0
  kEuler,           // Karras et al. 2022, without churn
  kEulerAncestral,  // with fresh noise after each step
  kDpmPp2mKarras,   // Lu et al. 2022, second order multistep, sigmas by Karras et al.
};

// Which steps of the schedule are asked at; kDpmPp2mKarras goes by sigmas alone.
enum class Spacing {
  kLeading,   // i * (steps / count) + offset
  kTrailing,  // steps - i * steps / count - 1: the last step is among them
  kLinspace,  // equal parts of [0, steps - 1], fractions allowed
};

struct SamplerSettings {
  SamplerKind kind = SamplerKind::kDdim;
  std::int64_t count = 20;  // of steps, in [1, schedule's]
  Spacing spacing = Spacing::kLeading;
  std::int64_t offset = 1;  // of kLeading
};

class Sampler {
 public:
  Sampler() = default;
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;
  virtual ~Sampler() = default;

  // Where the model is asked, from noise to picture: [count], perhaps between two steps.
  [[nodiscard]] const std::vector<double>& timesteps() const { return timesteps_; }
  // The latents begin as N(0, 1) times it.
  [[nodiscard]] virtual double initial_scale() const = 0;
  // What the model sees at step i is the latents times it.
  [[nodiscard]] virtual double input_scale(std::size_t i) const = 0;
  // Whether step() adds noise; it must be given N(0, 1) shaped like x then.
  [[nodiscard]] virtual bool draws() const { return false; }
  // The latents after step i, of x, those before it, and what the model told. In turn, from i = 0
  // on.
  virtual at::Tensor step(std::size_t i, const at::Tensor& x, const at::Tensor& prediction,
                          const at::Tensor& noise) = 0;

 protected:
  std::vector<double> timesteps_;
};

std::unique_ptr<Sampler> make_sampler(const NoiseSchedule& schedule,
                                      const SamplerSettings& settings);

}  // namespace lorascale::models::diffusion
