// Recoveries from divergence: what the rates remember of them. After a recovery at n0 samples the
// rate is half of what it was before, and rises to that over R samples, linear in samples and
// evaluated at the end of an update, as the warmup of schedule.hpp is. R is the recipe's at the
// time of the recovery: the recipe's own may change when a run goes on.
#pragma once

#include <cstdint>

#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

struct Recovery {
  std::int64_t count = 0;   // so far
  std::int64_t step = 0;    // of the checkpoint that the latest went back to
  std::int64_t at = 0;      // n0, its samples
  std::int64_t warmup = 0;  // R of the latest
  friend bool operator==(const Recovery&, const Recovery&) = default;
};

// What the rate of an update of `samples` samples that begins at `position` is multiplied by; 1
// where there was no recovery. A whole power of two beyond the ramp.
double recovery_factor(const Recovery& recovery, std::int64_t position, std::int64_t samples);

// The recoveries of a run. Those of the latest update are kept too, so that its rates can be
// computed again after a resume.
class RecoveryTrack {
 public:
  [[nodiscard]] const Recovery& now() const { return now_; }    // for the next update
  [[nodiscard]] const Recovery& last() const { return last_; }  // of the latest update

  void on_step() { last_ = now_; }
  void go_back(const Recovery& recovery) { now_ = recovery; }

  [[nodiscard]] Json save() const;  // null where there was none
  // Throws Json::exception where a value is missing.
  void load(const Json& saved);

 private:
  Recovery now_;
  Recovery last_;
};

}  // namespace lorascale::coordinator
