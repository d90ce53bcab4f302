// Measured numbers that formulas may square.
#pragma once

#include <cmath>

namespace lorascale::coordinator {

// Finite, and so far from the largest double that its square is too.
[[nodiscard]] inline bool has_finite_square(double value) {
  return std::abs(value) < 1e100;
}

}  // namespace lorascale::coordinator
