// The recipe: what the user asked for, in samples, after every unit has been resolved. Between
// two starts of a run it never changes; all rates and lengths are pure functions of (recipe,
// samples seen, batch).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lorascale::coordinator {

// How the learning rate follows k = (samples of the update) / batch.reference:
// none 1, linear k (Goyal et al. 2017), sqrt k^0.5 (Malladi et al. 2022 for Adam), power k^p,
// adascale r^p with a gain r between 1 and k that is measured as the run goes (adascale.hpp).
enum class ScaleRule { kNone, kLinear, kSqrt, kPower, kAdascale };
// Who chooses the batch while the run goes on; policies/ has a file for each.
enum class BatchPolicyKind { kFixed, kRamp, kNoiseScale, kSeesaw, kGoodput };
enum class ScheduleKind { kConstant, kLinear, kCosine, kWsd };

inline constexpr std::int64_t kNoSampleLimit = std::int64_t{1} << 50;

// A later part of the schedule, added when the run went on (continuation.hpp). Rates are shares of
// the peak; where it stands counts as the schedule does: in samples, under adascale in tau.
struct Leg {
  enum class Cause { kMore, kCooldown };
  Cause cause = Cause::kMore;
  double begin = 0;
  std::int64_t end = 0;
  ScheduleKind shape = ScheduleKind::kCosine;
  double from = 0;          // rises from here
  double peak = 1;          // to here
  std::int64_t warmup = 0;  // within this, in samples
  std::int64_t decay = 0;   // last part of wsd
  double floor = 0;         // where the shape ends
  friend bool operator==(const Leg&, const Leg&) = default;
};

struct Recipe {
  std::uint64_t seed = 0;
  std::int64_t samples_per_epoch = 0;  // rows of the training set
  std::int64_t global_batch = 0;       // B; an epoch's last update takes what is left
  std::int64_t reference_batch = 0;    // B0
  std::int64_t leaf_size = 1;          // b
  // End of the run; kNoSampleLimit where only time ends it. Under adascale it counts gain-adjusted
  // samples, as schedule and warmup do.
  std::int64_t budget_samples = 0;
  double budget_minutes = 0;  // 0: no limit in time

  // Changes of the batch (batch_guard.hpp); without effect under policy fixed. The run begins with
  // global_batch.
  BatchPolicyKind batch_policy = BatchPolicyKind::kFixed;
  std::int64_t batch_increment = 0;      // batches are multiples of it; 0: of global_batch
  std::int64_t batch_min = 0;            // 0: global_batch
  std::int64_t batch_max = 0;            // 0: none but the others
  std::int64_t batch_min_steps = 100;    // B <= budget / this; 0: off
  std::int64_t batch_dwell_samples = 0;  // from one change to the next, at least
  std::int64_t batch_ramp_samples = 0;   // policy ramp: until batch_max is reached
  double critical_fraction = 1;          // policy noise-scale: B <= this * critical batch
  double critical_batch = 0;             // given by the user; 0: as measured
  // Resumed on another number of ranks, the batch grows or shrinks as they do (batch.on_resize).
  bool batch_follows_ranks = false;

  double lr = 2e-4;  // tuned at B0
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;

  ScaleRule rule = ScaleRule::kSqrt;
  double power = 0.5;               // p; under adascale 1 for SGD, 1/2 for Adam
  bool scale_betas = false;         // beta' = 1 - k (1 - beta); refused where k (1 - beta) >= 1
  bool scale_eps = false;           // eps' = eps / sqrt(k)
  bool scale_weight_decay = false;  // lambda' keeps lambda' * lr' / B constant

  std::int64_t ramp_samples = 0;  // the rate's way from old to new after a change of the batch
  bool surge_cap = false;         // scaling.hpp, at the critical batch

  std::int64_t ema_half_life_samples = 0;  // of averaged weights; 0: off
  // Updates that end beyond it enter an equal mean of the weights; kNoSampleLimit: none does.
  std::int64_t swa_start_samples = kNoSampleLimit;

  ScheduleKind schedule = ScheduleKind::kCosine;
  std::int64_t warmup_samples = 0;
  std::int64_t decay_samples = 0;  // last part of wsd
  double floor = 0.0;              // fraction of the peak
  // What follows on the schedule above, in order; the last leg ends with the budget.
  std::vector<Leg> legs;
  std::int64_t first_leg_end = 0;  // of the schedule above, where there are legs

  std::int64_t patience = 0;  // early stop, in validations; 0 = off
  double min_delta = 0.0;

  // Divergence: a loss whose z-score against its moving mean stays above the limit, or updates that
  // are skipped because they are not finite, in a row. 0 in any of them switches that check off.
  double divergence_z = 8.0;
  std::int64_t divergence_patience = 20;
  std::int64_t max_skipped_in_row = 10;
  // How often a divergence takes the run back to its newest checkpoint instead of ending it, and
  // how long the rate then takes to rise (recovery.hpp).
  std::int64_t max_recoveries = 0;
  std::int64_t recovery_warmup_samples = 0;

  // Over how many samples the gradient noise scale is averaged; 0 = not measured.
  std::int64_t noise_horizon_samples = 0;

  // For the advisor (advisor.hpp): nothing else follows from these.
  bool advise = false;
  bool shuffled = true;                   // false: rows in file order
  std::int64_t adapter_rank = 0;          // 0: no adapter
  std::int64_t trainable_parameters = 0;  // 0: not known
  std::int64_t targets_per_epoch = 0;     // tokens that count; 0: not known
  std::int64_t documents = 0;             // that the rows hold; 0: not known
  bool packed = false;                    // several of them may share a row
  bool budget_in_steps = false;           // so that it does not grow with smaller batches

  // Pieces of documents that are in no row, for they have no target, of how many. For people.
  std::int64_t pieces_left_out = 0;
  std::int64_t pieces = 0;  // 0 where none is left out
};

}  // namespace lorascale::coordinator
