// The batch in force and what the rates remember of the last change. Everything that a rate depends
// on beside recipe and position is here, so a resumed run computes the same bits (I6).
#pragma once

#include <cstdint>

#include "coordinator/rates/scaling.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

struct BatchState {
  std::int64_t batch = 0;         // B, the global batch
  std::int64_t changed_at = 0;    // samples seen at the last change; 0: none yet
  double multiplier_before = 0;   // of the rate, just before the last change; 0: none yet
  double peak_batch = 0;          // where the cap of the rate bends; 0: no cap
  std::int64_t ramp_samples = 0;  // the rate's way since the last change; 0: at once
  friend bool operator==(const BatchState&, const BatchState&) = default;
};

// What a run begins with.
inline BatchState first_batch(const Recipe& recipe) {
  return {recipe.global_batch, 0, 0, given_peak(recipe), 0};
}

}  // namespace lorascale::coordinator
