// A normal number with mean 0 and variance 1 (Box and Muller) as a function of its counter.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "base/rng.hpp"

namespace lorascale::simulation {

inline double normal(std::uint64_t seed, std::uint32_t a, std::uint32_t b, std::uint32_t c = 0) {
  const PhiloxBlock bits = philox4x32({a, b, c, 0}, philox_key(seed));
  const double radius = std::sqrt(-2 * std::log(1.0 - uniform24(bits[0])));
  return radius * std::cos(2 * std::numbers::pi * static_cast<double>(uniform24(bits[1])));
}

}  // namespace lorascale::simulation
