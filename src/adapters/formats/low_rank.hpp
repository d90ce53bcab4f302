// Changes s B A of low rank, handled by their factors alone: what a layer's weight is as large as
// is never made. All in fp64 on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "adapters/formats/peft.hpp"

namespace lorascale::adapters {

// How many singular values of a layer are kept: `rank`, or where it is absent as few as hold
// `share` of the sum of their squares (0 < share <= 1), one at least.
struct RankChoice {
  std::optional<std::int64_t> rank;
  double share = 1;

  // `values`: falling. At most as many as there are.
  [[nodiscard]] std::int64_t of(const at::Tensor& values) const;
};

// The nearest change of the chosen rank (Eckart and Young), its factors of equal size and in fp32.
// Its scale is the module's, with the alpha that `settings` have for it, so that a training goes on
// as it was; DoRA's magnitudes belong to the whole change and cannot be kept.
PeftModule truncated(const PeftModule& module, const RankChoice& choice,
                     const LoraSettings& settings);

// The same change with the alpha that a module of `scale` and `rank` has: layers of one scale then
// have one alpha, whatever their ranks, which some readers of files count on.
PeftModule with_alpha_of(const PeftModule& module, double scale, std::int64_t rank,
                         const LoraSettings& settings);

// |s B A| and |s B A - s' B' A'|, Frobenius.
double norm_of_change(const PeftModule& module);
double norm_of_difference(const PeftModule& one, const PeftModule& other);

}  // namespace lorascale::adapters
