#include "coordinator/noise/noise_scale.hpp"

#include <cmath>

#include "base/error.hpp"
#include "base/portable_math.hpp"
#include "coordinator/finite.hpp"

namespace lorascale::coordinator {
namespace {

std::string_view text_of(NoiseFault fault) {
  switch (fault) {
    case NoiseFault::kNotMeasured:
      return "nothing was measured";
    case NoiseFault::kFewLeaves:
      return "updates have fewer than 2 leaves";
    case NoiseFault::kNoGradient:
      return "the gradient is 0";
    case NoiseFault::kNotFinite:
      return "the measured norms are not finite";
  }
  LS_ASSERT(!"every fault has a text");
  return {};
}

}  // namespace

NoiseMeasurement measure_noise(const SquareNorms& norms, std::int64_t leaves, double weight,
                               double samples) {
  if (leaves < 2) {
    return NoiseFault::kFewLeaves;
  }
  // Weights that sum to the samples of the update.
  const double leaf_square = norms.weighted_leaf_square * (samples / weight);
  const double excess = leaf_square - samples * norms.mean_square;
  NoiseEstimate estimate;
  estimate.trace = excess / static_cast<double>(leaves - 1);
  estimate.gradient_square = norms.mean_square - estimate.trace / samples;
  if (!(weight > 0) || !has_finite_square(estimate.trace) ||
      !has_finite_square(estimate.gradient_square)) {
    return NoiseFault::kNotFinite;
  }
  if (norms.weighted_leaf_square == 0) {
    return NoiseFault::kNoGradient;
  }
  return estimate;
}

NoiseMeasurement pooled(const NoiseMeasurement& one, const NoiseMeasurement& other) {
  const auto* first = std::get_if<NoiseEstimate>(&one);
  const auto* second = std::get_if<NoiseEstimate>(&other);
  if (first != nullptr && second != nullptr) {
    return NoiseEstimate{first->trace + second->trace,
                         first->gradient_square + second->gradient_square};
  }
  if (first == nullptr) {
    return std::get<NoiseFault>(one) == NoiseFault::kNoGradient ? other : one;
  }
  return std::get<NoiseFault>(other) == NoiseFault::kNoGradient ? one : other;
}

NoiseVariance theoretical_variance(double trace_of_squared_covariance,
                                   double covariance_along_gradient, std::int64_t leaves,
                                   double samples) {
  const double trace = 2 * trace_of_squared_covariance / static_cast<double>(leaves - 1);
  return {trace, 4 * covariance_along_gradient / samples +
                     trace * static_cast<double>(leaves) / (samples * samples)};
}

void NoiseTracker::add(const NoiseMeasurement& measurement, double samples, double horizon) {
  const auto* estimate = std::get_if<NoiseEstimate>(&measurement);
  if (estimate == nullptr) {
    fault_ = std::get<NoiseFault>(measurement);
    return;
  }
  const double memory = exponential(-samples / horizon);
  const double weight = 1 - memory;
  weight_ = memory * weight_ + weight;
  squared_weight_ = memory * memory * squared_weight_ + weight * weight;
  const double trace_step = estimate->trace - trace_;
  const double square_step = estimate->gradient_square - gradient_square_;
  trace_ += weight / weight_ * trace_step;
  gradient_square_ += weight / weight_ * square_step;
  const double square_rest = estimate->gradient_square - gradient_square_;
  trace_deviation_ = memory * trace_deviation_ + weight * trace_step * (estimate->trace - trace_);
  gradient_square_deviation_ =
      memory * gradient_square_deviation_ + weight * square_step * square_rest;
  codeviation_ = memory * codeviation_ + weight * trace_step * square_rest;
}

NoiseMoments NoiseTracker::moments() const {
  NoiseMoments moments;
  if (empty()) {
    return moments;
  }
  moments.trace = trace_;
  moments.gradient_square = gradient_square_;
  moments.updates = weight_ * weight_ / squared_weight_;
  const double freedom = weight_ - squared_weight_ / weight_;
  if (freedom > 0) {
    const double of_mean = 1 / (freedom * moments.updates);
    moments.trace_variance = trace_deviation_ * of_mean;
    moments.gradient_square_variance = gradient_square_deviation_ * of_mean;
    moments.covariance = codeviation_ * of_mean;
  }
  return moments;
}

NoiseReading NoiseTracker::reading() const {
  const NoiseMoments moments = this->moments();
  NoiseReading reading;
  reading.trace = moments.trace;
  reading.gradient_square = moments.gradient_square;
  reading.updates = moments.updates;
  if (empty()) {
    reading.unknown_because = text_of(fault_);
    return reading;
  }
  if (moments.trace > 0 && moments.gradient_square > 0) {
    const double ratio = moments.trace / moments.gradient_square;
    const double variance = moments.trace_variance - 2 * ratio * moments.covariance +
                            ratio * ratio * moments.gradient_square_variance;
    reading.b_simple = ratio;
    reading.relative_sd = std::sqrt(std::max(0.0, variance)) / moments.trace;
  }
  if (moments.updates < kFewestUpdates) {
    reading.unknown_because = "too few updates are in the average";
  } else if (reading.b_simple == 0) {
    reading.unknown_because = "an average of tr(Sigma) or |G|^2 is not above 0";
  } else if (!std::isfinite(reading.b_simple) || !(reading.relative_sd < kLargestRelativeSd)) {
    reading.unknown_because = "its relative sd is 0.25 or more";
  } else {
    reading.known = true;
    reading.unknown_because = {};
  }
  return reading;
}

Json NoiseTracker::save() const {
  return {{"weight", weight_},
          {"squared_weight", squared_weight_},
          {"trace", trace_},
          {"gradient_square", gradient_square_},
          {"trace_deviation", trace_deviation_},
          {"gradient_square_deviation", gradient_square_deviation_},
          {"codeviation", codeviation_},
          {"fault", static_cast<int>(fault_)}};
}

void NoiseTracker::load(const Json& state) {
  weight_ = state.at("weight").get<double>();
  squared_weight_ = state.at("squared_weight").get<double>();
  trace_ = state.at("trace").get<double>();
  gradient_square_ = state.at("gradient_square").get<double>();
  trace_deviation_ = state.at("trace_deviation").get<double>();
  gradient_square_deviation_ = state.at("gradient_square_deviation").get<double>();
  codeviation_ = state.at("codeviation").get<double>();
  const auto fault = state.at("fault").get<int>();
  if (fault < 0 || fault > static_cast<int>(NoiseFault::kNotFinite)) {
    throw_bad_input("the noise scale's fault " + std::to_string(fault) +
                    " is not one this version knows; use an earlier checkpoint");
  }
  fault_ = static_cast<NoiseFault>(fault);
}

}  // namespace lorascale::coordinator
