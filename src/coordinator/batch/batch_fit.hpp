// The fit of S = S_min (1 + B_crit / B) to updates-to-target S measured at several batches B
// (McCandlish et al. 2018), with 95 % intervals. Equivalently S = S_min + E_min / B with
// E_min = B_crit S_min, the samples that the smallest batches need.
//
// Least squares in log S. A run that did not reach the target says only that S lies above the
// updates it made, and enters with the probability of that (a Tobit likelihood): leaving such runs
// out, or taking their length for S, bends the curve. Intervals are projections of the likelihood
// contour at the quantile of Student's t: exact for a straight line, within a percent here (tests).
// A tool of reports: its numbers enter no state and no decision, so it uses the C library's
// functions. Pure and deterministic; no random numbers.
#pragma once

#include <span>
#include <string>

namespace lorascale::coordinator {

struct BatchPoint {
  double batch = 0;     // samples of an update
  double steps = 0;     // updates until the target, or those made without reaching it
  bool reached = true;  // false: censored
};

struct Interval {
  double low = 0;
  double high = 0;  // may be infinite
  [[nodiscard]] bool contains(double value) const { return low <= value && value <= high; }
};

struct BatchFit {
  double steps_min = 0;       // S_min, updates; 0 where the data shows no curvature
  double critical_batch = 0;  // B_crit, samples; infinite where S_min is 0
  double samples_min = 0;     // E_min = S_min B_crit
  Interval steps_min_95, critical_batch_95, samples_min_95;
  double noise = 0;  // standard deviation of log S about the curve, two parameters taken off
  double rms_log_residual = 0;  // of the points that reached the target
  double max_log_residual = 0;
  int reached = 0;
  int censored = 0;

  [[nodiscard]] double steps_at(double batch) const { return steps_min + samples_min / batch; }
};

// Several points may share a batch (seeds). Throws Error(kBadInput) where a number is not positive
// and finite, or fewer than three points at two batches reached the target.
BatchFit fit_batch_curve(std::span<const BatchPoint> points);

// A sentence or two with the numbers, and what to measure where an end is open.
std::string describe(const BatchFit& fit);

}  // namespace lorascale::coordinator
