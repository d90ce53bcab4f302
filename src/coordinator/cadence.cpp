#include "coordinator/cadence.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace lorascale::coordinator {
namespace {

// Samples in one unit of the amount.
double samples_per_unit(const Amount& every, const UnitContext& context) {
  const auto needed = [&](double value, const char* what) {
    if (!(value > 0)) {
      throw_bad_config(fmt::format(
          "'every: {}' needs {}, which is not known here; write it in samples, steps or minutes",
          to_string(every), what));
    }
    return value;
  };
  switch (every.unit) {
    case Unit::kTokens:
      return 1 / needed(context.tokens_per_sample, "the average number of tokens of a sample");
    case Unit::kEpochs:
      return needed(static_cast<double>(context.samples_per_epoch),
                    "the number of samples of an epoch");
    case Unit::kFraction:
      return needed(static_cast<double>(context.budget_samples), "a budget in samples");
    default:
      return 1;
  }
}

// How many boundaries round(j * interval), j = 1, 2, ..., lie in (0, count].
double boundaries(std::int64_t count, double interval) {
  const double position = static_cast<double>(count);
  double j = std::floor((position + 0.5) / interval);
  // The quotient is rounded and may be off by one.
  while (std::round((j + 1) * interval) <= position) {
    ++j;
  }
  while (j > 0 && std::round(j * interval) > position) {
    --j;
  }
  return j;
}

}  // namespace

Cadence::Cadence(const Amount& every, const UnitContext& context) {
  if (!std::isfinite(every.value) || every.value < 0) {
    throw_bad_config(
        fmt::format("'every: {}' is no interval; use 0 (never) or more", to_string(every)));
  }
  if (every.value == 0) {
    return;
  }
  switch (every.unit) {
    case Unit::kMinutes:
      clock_ = Clock::kMinutes;
      interval_ = every.value;
      break;
    case Unit::kSteps:
      clock_ = Clock::kSteps;
      interval_ = std::max(1.0, every.value);
      break;
    default:
      clock_ = Clock::kSamples;
      interval_ = std::max(1.0, every.value * samples_per_unit(every, context));
  }
}

bool Cadence::due(const Progress& before, const Progress& after) const {
  switch (clock_) {
    case Clock::kNever:
      return false;
    case Clock::kSteps:
      return boundaries(after.steps, interval_) > boundaries(before.steps, interval_);
    case Clock::kSamples:
      return boundaries(after.samples, interval_) > boundaries(before.samples, interval_);
    case Clock::kMinutes:
      return std::floor(after.elapsed_minutes / interval_) >
             std::floor(before.elapsed_minutes / interval_);
  }
  return false;
}

}  // namespace lorascale::coordinator
