// How long an update takes, after Pollux (Qiao et al. 2021), in the terms of leaves:
//   T_leaf = a_c + b_c b                          one leaf of b samples
//   T_net  = a_n + b_n max(W - 2, 0)              what happens once per update on W ranks
//   T_step = (L - 1) T_leaf + (T_leaf^g + T_net^g)^(1/g)
// L is the number of leaves on the busiest rank; g in [1, 10] says how far the last leaf hides the
// rest: 1 not at all. On one rank T_net is what an update costs beside its leaves.
//
// Parameters are fitted to measured times by the least root mean square of log(model / measured),
// so that a long time weighs no more than a short one. What the data do not determine (b_c with
// leaves of one size, b_n up to 2 ranks) stays at its first guess: predictions hold for the leaf
// sizes and ranks that were measured.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

struct ThroughputParameters {  // seconds
  double per_leaf = 0;         // a_c
  double per_sample = 0;       // b_c
  double per_update = 0;       // a_n
  double per_rank = 0;         // b_n
  double overlap = 1;          // g
};

struct UpdateShape {
  std::int64_t leaf_size = 1;  // b
  std::int64_t leaves = 1;     // L, of the busiest rank
  int world_size = 1;          // W
  friend bool operator==(const UpdateShape&, const UpdateShape&) = default;
};

double leaf_seconds(const ThroughputParameters& model, std::int64_t leaf_size);
double step_seconds(const ThroughputParameters& model, const UpdateShape& shape);

// Measured times of one shape: geometric means over about the last kMemory updates.
struct Timing {
  static constexpr std::int64_t kMemory = 64;

  UpdateShape shape;
  std::int64_t updates = 0;  // at most kMemory; the weight of this row
  double log_leaf = 0;       // mean of log seconds
  double log_step = 0;

  void add(double leaf, double step);  // both finite and above 0
};

Json timing_to_json(const Timing& timing);
Timing timing_from_json(const Json& json);  // throws Json::exception or Error(kBadInput)

struct ThroughputFit {
  ThroughputParameters model;
  double log_rmse = 0;
};
// `timings` is not empty.
ThroughputFit fit_throughput(std::span<const Timing> timings);

// Statistical efficiency: progress per sample at batch B against B0, (phi + B0) / (phi + B), with
// the critical batch phi.
double efficiency(double critical_batch, double reference_batch, double batch);

}  // namespace lorascale::coordinator
