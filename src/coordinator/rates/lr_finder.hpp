// The learning-rate range test (Smith 2015) as a pure state machine: the rate of the next update
// follows from the settings and the losses reported so far, so ranks that agree about the losses
// agree about every rate and about the end. Restoring parameters, optimizer, random numbers and
// the place in the data afterwards is the caller's, and so is using the batch of the run to come.
//
// Where such tests go wrong, and what this one does:
//   - A moving average lags behind the rate, by half the range at 0.98 and 100 updates. Here it
//     only ends the test; the curve is read afterwards with windows centred on each rate.
//   - The loss reported for an update is the one before it. A rate is judged by the loss after it.
//   - dloss/dlr favours small rates; this is dloss/dlog(lr).
//   - One point looks more certain than it is. The result is a bracket, with a suggestion inside.
//   - A noisy or flat curve has a lowest point too. A fall that does not stand out from the
//     scatter of the losses is "no usable descent", with the reason.
//   - A loss that saturates (cross-entropy at the size of the vocabulary) never gets to a multiple
//     of the best. The upper end is where the loss turns, whatever ended the test.
//   - Instability needs updates to grow before it shows, so the upper end lies above the largest
//     stable rate, by up to a factor of 2 to 3 at 100 updates over five decades; the suggestion
//     keeps away from it. LoRA's B = 0 delays the descent in the same way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lorascale::coordinator {

struct LrFinderSettings {
  double from = 1e-7;  // rate of the first update
  double to = 1;       // and of the last; those between are spaced evenly in log(lr)
  std::int64_t updates = 100;
  double smoothing = 0.9;  // of the moving average that ends the test
  double divergence = 4;   // it ends when the average is this multiple of its lowest value
  friend bool operator==(const LrFinderSettings&, const LrFinderSettings&) = default;
};

enum class LrVerdict {
  kBracket,    // the loss fell and turned: the best rate lies between low and high
  kOpenAbove,  // it was still falling at the last rate: high is that rate, not a limit
  kNoDescent,  // it never fell by more than a thousandth and its scatter; the rates below are 0
};

struct LrRange {
  LrVerdict verdict = LrVerdict::kNoDescent;
  double low = 0;         // where the steepest region begins
  double high = 0;        // the last rate before the loss turned up
  double suggestion = 0;  // between them: a quarter of high, or their middle where that is more
  double steepest = 0;    // rate of the least dloss/dlog(lr)
  double slope = 0;       // there, in loss per factor e of the rate
  double fall = 0;        // of the smoothed loss, from the first rates to its lowest
  double scatter = 0;     // standard deviation of one update's loss about the smooth curve
  std::string reason;     // a sentence with the numbers
};

// A rate, the loss of the update after it, and what result() makes of that loss: a running median.
struct LrPoint {
  double lr = 0;
  double loss = 0;
  double smoothed = 0;
};

class LrFinder {
 public:
  static constexpr std::int64_t kLeastUpdates = 20;

  // Throws Error(kBadConfig).
  explicit LrFinder(const LrFinderSettings& settings);

  // The rate of the next update; nothing once the test is over.
  [[nodiscard]] std::optional<double> next_lr() const;
  // The loss of the next update's global batch, before the update, the same on every rank. One that
  // is not finite, or far above the best, ends the test.
  void report(double loss);
  [[nodiscard]] bool diverged() const { return diverged_; }
  [[nodiscard]] const std::vector<double>& losses() const { return losses_; }
  [[nodiscard]] double rate(std::int64_t update) const;  // of update 0, 1, ..., updates - 1

  // Of the losses so far; for good once next_lr() is empty.
  [[nodiscard]] LrRange result() const;
  // What result() reads. The rate of the newest loss has none after it yet, and no point.
  [[nodiscard]] std::vector<LrPoint> curve() const;

 private:
  // Updates on either side that a value of the smoothed curve looks at.
  [[nodiscard]] std::size_t half_window() const;
  [[nodiscard]] std::string too_short() const;

  LrFinderSettings settings_;
  std::vector<double> losses_;  // reported, finite
  double average_ = 0;          // before the correction for its start at 0
  double weight_ = 0;           // what the correction divides by
  double lowest_ = 0;           // average so far
  bool diverged_ = false;
};

}  // namespace lorascale::coordinator
