#include "coordinator/rates/lr_finder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>

#include "base/error.hpp"
#include "base/portable_math.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {
namespace {

void check(const LrFinderSettings& settings) {
  if (!(settings.from > 0 && settings.to > settings.from && std::isfinite(settings.to))) {
    throw_bad_config(
        fmt::format("the rates of a range test must rise from above 0, not from {} to {}; 1e-7 to "
                    "1 suits most models",
                    to_text(settings.from), to_text(settings.to)));
  }
  if (settings.updates < LrFinder::kLeastUpdates) {
    throw_bad_config(
        fmt::format("a range test of {} updates shows no curve; use at least {}, better 100",
                    settings.updates, LrFinder::kLeastUpdates));
  }
  if (!(settings.smoothing >= 0 && settings.smoothing < 1)) {
    throw_bad_config("the smoothing of a range test must be at least 0 and below 1, not " +
                     to_text(settings.smoothing));
  }
  if (!(settings.divergence > 1)) {
    throw_bad_config("a range test must end at a multiple of the best loss above 1, not at " +
                     to_text(settings.divergence));
  }
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The median of up to `half` values on either side, of equally many on both: it follows a monotone
// curve exactly, up to its ends and up to a wall, which a mean would smear.
std::vector<double> running_median(std::span<const double> values, std::size_t half) {
  std::vector<double> smooth(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t reach = std::min({half, i, values.size() - 1 - i});
    const auto window = values.subspan(i - reach, 2 * reach + 1);
    smooth[i] = median({window.begin(), window.end()});
  }
  return smooth;
}

// The standard deviation of a value about the curve: from distances to the mean of both neighbours,
// whose variance is 1.5 of it, by their median, which a wall at the end does not move.
double scatter_of(std::span<const double> values) {
  constexpr double kMedianToDeviation = 1.4826;  // for normal values
  std::vector<double> distances;
  for (std::size_t i = 1; i + 1 < values.size(); ++i) {
    distances.push_back(std::abs(values[i] - 0.5 * (values[i - 1] + values[i + 1])));
  }
  return kMedianToDeviation * median(std::move(distances)) / std::sqrt(1.5);
}

// Falls by chance alone: the lowest of ten or so medians lies 1.5 deviations below their mean, and
// the first one has a deviation of its own.
constexpr double kSignificance = 5;

// Of the loss. A fall may stand out and still be nothing that training would notice.
constexpr double kLeastFall = 1e-3;

// The losses after each rate, read off the smoothed curve.
struct Curve {
  std::vector<double> smooth;
  std::vector<double> slope;  // per update, zero within `half` of the ends
  std::size_t half = 0;
  double scatter = 0;         // of one loss
  double smooth_scatter = 0;  // of a value of `smooth`
  std::size_t lowest = 0;
  std::size_t steepest = 0;

  Curve(std::span<const double> losses, std::size_t half_window) : half(half_window) {
    smooth = running_median(losses, half);
    scatter = scatter_of(losses);
    constexpr double kMedianOverMean = 1.2533;  // of normal values: sqrt(pi / 2)
    smooth_scatter = kMedianOverMean * scatter / std::sqrt(static_cast<double>(2 * half + 1));
    find_lowest();
    slope.assign(smooth.size(), 0);
    steepest = half;
    for (std::size_t i = half; i <= lowest; ++i) {
      slope[i] = (smooth[i + half] - smooth[i - half]) / static_cast<double>(2 * half);
      if (slope[i] < slope[steepest]) {
        steepest = i;
      }
    }
  }

  [[nodiscard]] double fall() const { return smooth[half] - smooth[lowest]; }
  [[nodiscard]] bool stands_out() const { return fall() > kSignificance * smooth_scatter; }

  // The first rate of the region around the steepest one in which the loss falls at least half as
  // fast.
  [[nodiscard]] std::size_t steep_begin() const {
    std::size_t begin = steepest;
    while (begin > half && slope[begin - 1] <= 0.5 * slope[steepest]) {
      --begin;
    }
    return begin;
  }

  // The last rate before the loss has risen from its lowest by a tenth of the fall, and by more
  // than the scatter explains.
  [[nodiscard]] std::size_t last_stable() const {
    const double limit = smooth[lowest] + std::max(0.1 * fall(), 2 * smooth_scatter);
    std::size_t last = lowest;
    while (last + 1 < smooth.size() && smooth[last + 1] <= limit) {
      ++last;
    }
    return last;
  }

 private:
  // The lowest before the loss gave back half of a fall that stands out. What comes after that is
  // chaos, in which a loss may happen to end up lower still.
  void find_lowest() {
    lowest = half;
    // Full windows only: a shorter one scatters more, and would be the lowest for that.
    for (std::size_t i = half; i + half < smooth.size(); ++i) {
      if (smooth[i] < smooth[lowest]) {
        lowest = i;
      }
      const double rise = smooth[i] - smooth[lowest];
      if (stands_out() && rise > 0.5 * fall() && rise > kSignificance * smooth_scatter) {
        return;
      }
    }
  }
};

// How far below the turn the suggestion lies: on noisy quadratic models of spread curvatures the
// best constant rate is between two thirds and a seventh of the upper end (lr_finder_test.cpp).
constexpr double kBelowTheTurn = 4;

}  // namespace

LrFinder::LrFinder(const LrFinderSettings& settings) : settings_(settings) {
  check(settings_);
  losses_.reserve(static_cast<std::size_t>(settings_.updates));
}

double LrFinder::rate(std::int64_t update) const {
  LS_ASSERT(update >= 0 && update < settings_.updates);
  if (update + 1 == settings_.updates) {
    return settings_.to;
  }
  const double part = static_cast<double>(update) / static_cast<double>(settings_.updates - 1);
  return settings_.from * exponential(part * natural_log(settings_.to / settings_.from));
}

std::optional<double> LrFinder::next_lr() const {
  const auto done = static_cast<std::int64_t>(losses_.size());
  return diverged_ || done == settings_.updates ? std::nullopt : std::optional(rate(done));
}

void LrFinder::report(double loss) {
  LS_ASSERT(next_lr().has_value());
  if (!std::isfinite(loss)) {
    diverged_ = true;
    return;
  }
  losses_.push_back(loss);
  average_ = settings_.smoothing * average_ + (1 - settings_.smoothing) * loss;
  weight_ = settings_.smoothing * weight_ + (1 - settings_.smoothing);
  const double smoothed = average_ / weight_;
  lowest_ = losses_.size() == 1 ? smoothed : std::min(lowest_, smoothed);
  diverged_ = smoothed > settings_.divergence * lowest_;
}

std::string LrFinder::too_short() const {
  const auto losses = static_cast<std::int64_t>(losses_.size());
  if (!diverged_) {
    return fmt::format("{} finite losses of {} show no curve; let the test run on", losses,
                       settings_.updates);
  }
  return fmt::format(
      "{} finite losses of {} show no curve: the loss left all bounds at a rate of {}; start from "
      "a lower rate, and check data and model if that does not help",
      losses, settings_.updates, to_text(rate(std::max<std::int64_t>(losses, 1) - 1)));
}

std::size_t LrFinder::half_window() const {
  return static_cast<std::size_t>(std::max<std::int64_t>(2, settings_.updates / 25));
}

std::vector<LrPoint> LrFinder::curve() const {
  std::vector<LrPoint> points;
  if (losses_.empty()) {
    return points;
  }
  const auto after = std::span<const double>(losses_).subspan(1);
  const auto smooth = running_median(after, half_window());
  for (std::size_t i = 0; i < after.size(); ++i) {
    points.push_back({rate(static_cast<std::int64_t>(i)), after[i], smooth[i]});
  }
  return points;
}

LrRange LrFinder::result() const {
  LrRange range;
  const std::size_t half = half_window();
  // losses_[i + 1] is the loss after the update with rate(i).
  if (losses_.size() < 2 + 4 * half) {
    range.reason = too_short();
    return range;
  }
  const Curve curve(std::span<const double>(losses_).subspan(1), half);
  const auto rate_at = [&](std::size_t i) { return rate(static_cast<std::int64_t>(i)); };
  range.fall = curve.fall();
  range.scatter = curve.scatter;
  if (!curve.stands_out() || range.fall <= kLeastFall * std::abs(curve.smooth[half])) {
    range.reason = fmt::format(
        "no usable descent between the rates {} and {}: the smoothed loss falls by {} from {}, "
        "less than a thousandth or than the scatter of single losses, {}, can explain; use more "
        "updates, a larger batch or a {} rate",
        to_text(rate_at(0)), to_text(rate_at(losses_.size() - 1)), to_text(range.fall),
        to_text(curve.smooth[half]), to_text(range.scatter),
        diverged_ ? "lower first" : "higher last");
    return range;
  }
  range.low = rate_at(curve.steep_begin());
  range.high = rate_at(curve.last_stable());
  range.steepest = rate_at(curve.steepest);
  range.slope = curve.slope[curve.steepest] / (natural_log(settings_.to / settings_.from) /
                                               static_cast<double>(settings_.updates - 1));
  range.suggestion = std::max(range.high / kBelowTheTurn, std::sqrt(range.low * range.high));
  const bool turned = diverged_ || curve.last_stable() + 1 < curve.smooth.size();
  range.verdict = turned ? LrVerdict::kBracket : LrVerdict::kOpenAbove;
  range.reason = fmt::format(
      "the loss falls fastest at a rate of {}, by {} per factor e, at least half as fast from {} "
      "on, and {} {}; its lowest is {} below the first rates' loss; {} is {}{}",
      to_text(range.steepest), to_text(-range.slope), to_text(range.low),
      turned ? "turns up after" : "still falls at the last rate,", to_text(range.high),
      to_text(range.fall), to_text(range.suggestion),
      range.suggestion * kBelowTheTurn > range.high ? "the middle of that range"
                                                    : "a quarter of the upper end",
      turned ? ", for instability shows late" : "; repeat with a higher last rate");
  return range;
}

}  // namespace lorascale::coordinator
