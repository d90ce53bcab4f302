// When a run is saved, and writes that may fail: a disk that is full now may have room later, so
// what may be written again costs a warning, and only a row of failures ends the run.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "io/checkpoint_folder.hpp"
#include "train/run.hpp"

namespace lorascale::train {

// How often a write on rank 0 failed that the run can go on without for a while.
struct Tolerance {
  int failures_in_a_row = 0;
  std::optional<Error> lost;  // why the newest is not on disk
};

// Collective: `action` on rank 0. Where `tolerance` is null, a failure ends the run.
void write_alone(Run& run, Tolerance* tolerance, const std::function<void()>& action);

class Checkpointer {
 public:
  explicit Checkpointer(Run& run)
      : run_(run), cadence_(run.session.config.checkpoint.every, run.session.units) {}

  // Saves the run as it is now, unless it was saved at this step before. Collective.
  void save(bool must_succeed, io::Existing existing = io::Existing::kKept);
  // Whether a checkpoint is due after an update that led from `before` to `after`. One that is due
  // while the run is in trouble is owed: such a state would be a bad one to go back to.
  bool due(const coordinator::Progress& before, const coordinator::Progress& after);
  // The run is that of the checkpoint after `step`; -1: it has none, and is to be saved next.
  void is_at(std::int64_t step) { saved_step_ = step; }
  [[nodiscard]] bool saved_any() const { return saved_step_ >= 0; }
  // The end of a run that does not fit into memory: saved first, where it is worth that.
  [[noreturn]] void give_up(const std::string& what);

 private:
  Run& run_;
  coordinator::Cadence cadence_;
  Tolerance tolerance_;
  std::int64_t saved_step_ = -1;  // or tried to
  bool owed_ = false;
};

}  // namespace lorascale::train
