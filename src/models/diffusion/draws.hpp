// What is random in the training of a diffusion model, for each sample by itself: a function of
// seed, epoch and sample id, the same in any leaf and on any rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "base/sample_key.hpp"

namespace lorascale::models::diffusion {

// Uses of randomness; those of data sets lie below (data/), those of layers lower still.
enum class Draw : std::uint32_t {
  kTime = kFirstDataDraw + 0x100,
  kLatents,  // of the autoencoder's distribution
  kNoise,
  kOffset,        // of the noise's mean
  kPerturbation,  // of what the model sees
};

// In [0, steps): `part` of `parts` equal ones of the schedule (0 of 1: all of it).
std::int64_t draw_time(const SampleKey& key, std::int64_t sample, std::int64_t steps,
                       std::int64_t part = 0, std::int64_t parts = 1);

// N(0, 1), fp32 on the CPU: [samples, ...shape]. The same bits on every machine. `round` tells
// several draws of one use apart.
at::Tensor draw_normal(const SampleKey& key, const std::vector<std::int64_t>& samples, Draw draw,
                       const std::vector<std::int64_t>& shape, std::uint32_t round = 0);

}  // namespace lorascale::models::diffusion
