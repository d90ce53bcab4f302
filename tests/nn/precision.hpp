// Shared by the tests of layers on pictures: types with the precision that can be asked of them.
#pragma once

#include "support/tensors.hpp"

namespace lorascale::nn {

struct Precision {
  at::ScalarType type;
  double tolerance;

  // Of gradients, which are never of 16 bits.
  [[nodiscard]] at::ScalarType gradients() const {
    return type == at::kDouble ? at::kDouble : at::kFloat;
  }
};

inline constexpr Precision kDouble = {at::kDouble, 1e-11};
inline constexpr Precision kSingle = {at::kFloat, 2e-5};
inline constexpr Precision kSixteenBit = {at::kBFloat16, 6e-2};

}  // namespace lorascale::nn
