// Random initial weights: a function of (seed, name, place) alone, with the same bits on every
// machine and rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace lorascale::models {

// Uniform in [-bound, bound).
void fill_uniform(const at::Tensor& target, double bound, std::uint64_t seed,
                  const std::string& name);
void fill_normal(const at::Tensor& target, double deviation, std::uint64_t seed,
                 const std::string& name);

}  // namespace lorascale::models
