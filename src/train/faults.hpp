// Faults on purpose, for tests and drills (config: faults). Each is a line of words:
//   KIND step=N phase=PHASE [rank=R] [times=T] [seconds=S]
// KIND   oom     the phase runs out of memory
//        nan     the gradient of the update is not a number (phase backward)
//        mask    no token of the leaf counts as a target (phase forward)
//        slow    the phase takes S seconds longer
//        kill    the process ends by SIGKILL
// PHASE  forward, backward, optimizer, evaluation, sample, recovery (before its checkpoint)
// step: 0 is before the first update: the first validation, and a leaf that is only measured.
// rank: every rank where not given; times: 1 where not given, as often as the phase is come to.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/communicator.hpp"

namespace lorascale::train {

enum class Phase { kForward, kBackward, kOptimizer, kEvaluation, kSample, kRecovery };

struct Fault {
  enum class Kind { kOom, kNan, kMask, kSlow, kKill };
  Kind kind = Kind::kOom;
  std::int64_t step = 0;
  Phase phase = Phase::kForward;
  std::int64_t rank = -1;  // -1: every rank
  std::int64_t times = 1;
  double seconds = 0;
  std::string text;  // as it was written
};

// Throws Error(kBadConfig) that names the word it does not understand.
Fault parse_fault(const std::string& text);

class FaultInjector {
 public:
  FaultInjector(const std::vector<std::string>& faults, int rank);

  void begin_step(std::int64_t step) { step_ = step; }
  // The run goes on: what was due before is not missed.
  void resumed_after(std::int64_t step) { first_step_ = step + 1; }
  // Does what is due here: throws std::bad_alloc, sleeps or ends the process. True where the
  // gradient, or the leaf, is to be spoilt.
  bool reach(Phase phase);

  // Collective. The faults that came on no rank, although the run was at their steps or has ended
  // before them.
  [[nodiscard]] std::vector<std::string> missed(comm::Communicator& host) const;

 private:
  std::vector<Fault> faults_;          // of all ranks
  std::vector<std::int64_t> reached_;  // how often each came here
  int rank_;
  std::int64_t step_ = 0;
  std::int64_t first_step_ = 0;  // of this start
};

}  // namespace lorascale::train
