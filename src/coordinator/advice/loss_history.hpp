// The training losses that the advisor judges by: the last kWindow of them, the first ones, and the
// lowest level so far. Levels are means over kBlock updates, with the scatter of the losses around
// them. Steps of the run, losses in nats per target.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

struct LossLevel {
  double mean = 0;
  double variance = 0;  // of one loss around the mean; 0 for fewer than two
  std::int64_t count = 0;
  std::int64_t first_step = 0, last_step = 0;
};
Json to_json(const LossLevel& level);
LossLevel loss_level_from(const Json& json);

// By how many standard errors `now` is above `before`. The scatter is that of `now`, or of `before`
// where that is larger and has a block to tell it: the variance of four losses says little, and
// nothing where the loss jumped among them. Infinite where there is no scatter at all.
double rise_in_errors(const LossLevel& now, const LossLevel& before);

// A straight line through losses, by least squares.
struct LossTrend {
  double slope_in_errors = 0;  // slope over its standard error
  double variance = 0;         // of the losses around the line
};

class LossHistory {
 public:
  static constexpr std::int64_t kBlock = 16;
  static constexpr std::int64_t kWindow = 4 * kBlock;
  // The level before training has done anything: so few, because a rate that is far too high
  // changes the loss within ten updates.
  static constexpr std::int64_t kFirst = 4;

  // `error`: standard error of the loss as an estimate over all data, 0 where it is not known.
  void add(std::int64_t step, double loss, double error);

  [[nodiscard]] std::int64_t count() const { return count_; }
  // True after each kBlock losses: blocks do not overlap, so their levels are independent.
  [[nodiscard]] bool at_end_of_block() const { return count_ > 0 && count_ % kBlock == 0; }
  [[nodiscard]] bool window_is_full() const {
    return static_cast<std::int64_t>(points_.size()) == kWindow;
  }
  // Of the `count` newest losses but for the `skip` newest of all; of fewer where there are fewer.
  [[nodiscard]] LossLevel latest(std::int64_t count = kBlock, std::int64_t skip = 0) const;
  [[nodiscard]] const LossLevel& first() const { return first_; }
  // The lowest of the first level and of all blocks but the two newest.
  [[nodiscard]] const LossLevel& lowest() const { return lowest_; }
  [[nodiscard]] LossTrend trend() const;  // of the window
  // Mean square of the window's standard errors; nothing where one is not known.
  [[nodiscard]] std::optional<double> mean_square_error() const;
  [[nodiscard]] std::int64_t window_begin() const { return points_.front().step; }

  [[nodiscard]] Json save() const;
  void load(const Json& state);

 private:
  struct Point {
    std::int64_t step = 0;
    double loss = 0;
    double error = 0;
  };
  std::vector<Point> points_;  // the newest last
  std::int64_t count_ = 0;
  LossLevel first_;
  LossLevel lowest_;
};

}  // namespace lorascale::coordinator
