// The monitors of a run, in the order in which they see the facts and in which their reasons to
// stop count.
#pragma once

#include <array>

#include "coordinator/divergence.hpp"
#include "coordinator/monitor.hpp"
#include "coordinator/validation.hpp"

namespace lorascale::coordinator {

struct Monitors {
  explicit Monitors(const Recipe& recipe) : divergence(recipe), validation(recipe) {}

  DivergenceDetector divergence;
  ValidationTracker validation;

  std::array<Monitor*, 2> all() { return {&divergence, &validation}; }
  [[nodiscard]] std::array<const Monitor*, 2> all() const { return {&divergence, &validation}; }
};

}  // namespace lorascale::coordinator
