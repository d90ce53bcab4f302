// When something that happens "every 500 steps / 2M samples / 1 epoch / 10 minutes" is due: when an
// update crosses a multiple of the interval, not when a count divides by it. So updates of any size
// neither miss a boundary nor need to land on it, and a resumed run, whose progress goes on, fires
// where the uninterrupted one would have.
#pragma once

#include <cstdint>

#include "base/units.hpp"

namespace lorascale::coordinator {

struct Progress {
  std::int64_t steps = 0;
  std::int64_t samples = 0;
  double elapsed_minutes = 0;  // of the run, resumed parts included
};

class Cadence {
 public:
  Cadence() = default;  // never
  // An amount of 0 is never. Epochs, tokens and percent (of the budget) become samples; their
  // multiples are rounded one by one, so they do not drift. An interval below one step or sample
  // means every update. Throws Error(kBadConfig) where the context cannot tell what the amount is.
  Cadence(const Amount& every, const UnitContext& context);

  // Whether a boundary lies in (before, after].
  [[nodiscard]] bool due(const Progress& before, const Progress& after) const;

 private:
  enum class Clock { kNever, kSteps, kSamples, kMinutes };

  Clock clock_ = Clock::kNever;
  double interval_ = 0;  // of clock_; steps and samples: 1 or more
};

}  // namespace lorascale::coordinator
