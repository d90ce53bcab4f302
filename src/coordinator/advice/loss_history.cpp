#include "coordinator/advice/loss_history.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lorascale::coordinator {

Json to_json(const LossLevel& level) {
  return {{"mean", level.mean},
          {"variance", level.variance},
          {"count", level.count},
          {"steps", {level.first_step, level.last_step}}};
}

LossLevel loss_level_from(const Json& json) {
  return {json.at("mean").get<double>(), json.at("variance").get<double>(),
          json.at("count").get<std::int64_t>(), json.at("steps").at(0).get<std::int64_t>(),
          json.at("steps").at(1).get<std::int64_t>()};
}

double rise_in_errors(const LossLevel& now, const LossLevel& before) {
  const double rise = now.mean - before.mean;
  const bool both = before.count >= LossHistory::kBlock;
  const double scatter = both ? std::max(now.variance, before.variance) : now.variance;
  const double error = std::sqrt(
      scatter * (1 / static_cast<double>(now.count) + 1 / static_cast<double>(before.count)));
  if (error > 0) {
    return rise / error;
  }
  return rise == 0 ? 0 : std::copysign(std::numeric_limits<double>::infinity(), rise);
}

void LossHistory::add(std::int64_t step, double loss, double error) {
  if (static_cast<std::int64_t>(points_.size()) == kWindow) {
    points_.erase(points_.begin());
  }
  points_.push_back({step, loss, error});
  ++count_;
  if (count_ <= kFirst) {
    first_ = lowest_ = latest(kFirst);
  }
  if (at_end_of_block() && count_ >= 3 * kBlock) {
    const LossLevel settled = latest(kBlock, 2 * kBlock);
    if (settled.mean < lowest_.mean) {
      lowest_ = settled;
    }
  }
}

LossLevel LossHistory::latest(std::int64_t count, std::int64_t skip) const {
  LossLevel level;
  const auto end = static_cast<std::int64_t>(points_.size()) - skip;
  const std::int64_t begin = std::max<std::int64_t>(0, end - count);
  if (begin >= end) {
    return level;
  }
  level.count = end - begin;
  level.first_step = points_[static_cast<std::size_t>(begin)].step;
  level.last_step = points_[static_cast<std::size_t>(end - 1)].step;
  for (auto i = begin; i < end; ++i) {
    level.mean += points_[static_cast<std::size_t>(i)].loss / static_cast<double>(level.count);
  }
  for (auto i = begin; i < end && level.count > 1; ++i) {
    const double distance = points_[static_cast<std::size_t>(i)].loss - level.mean;
    level.variance += distance * distance / static_cast<double>(level.count - 1);
  }
  return level;
}

LossTrend LossHistory::trend() const {
  const auto n = static_cast<double>(points_.size());
  const double mean = latest(kWindow).mean;
  double spread = 0, product = 0;
  for (std::size_t i = 0; i < points_.size(); ++i) {
    const double x = static_cast<double>(i) - (n - 1) / 2;
    spread += x * x;
    product += x * (points_[i].loss - mean);
  }
  const double slope = product / spread;
  double squares = 0;
  for (std::size_t i = 0; i < points_.size(); ++i) {
    const double x = static_cast<double>(i) - (n - 1) / 2;
    const double residual = points_[i].loss - mean - slope * x;
    squares += residual * residual;
  }
  LossTrend trend;
  trend.variance = squares / (n - 2);
  const double error = std::sqrt(trend.variance / spread);
  trend.slope_in_errors = error > 0 ? slope / error : 0;
  return trend;
}

std::optional<double> LossHistory::mean_square_error() const {
  double sum = 0;
  for (const Point& point : points_) {
    if (!(point.error > 0)) {
      return std::nullopt;
    }
    sum += point.error * point.error;
  }
  return points_.empty() ? std::nullopt : std::optional(sum / static_cast<double>(points_.size()));
}

Json LossHistory::save() const {
  Json points = Json::array();
  for (const Point& point : points_) {
    points.push_back({point.step, point.loss, point.error});
  }
  return {{"points", points},
          {"count", count_},
          {"first", to_json(first_)},
          {"lowest", to_json(lowest_)}};
}

void LossHistory::load(const Json& state) {
  points_.clear();
  for (const Json& point : state.at("points")) {
    points_.push_back(
        {point.at(0).get<std::int64_t>(), point.at(1).get<double>(), point.at(2).get<double>()});
  }
  count_ = state.at("count").get<std::int64_t>();
  first_ = loss_level_from(state.at("first"));
  lowest_ = loss_level_from(state.at("lowest"));
}

}  // namespace lorascale::coordinator
