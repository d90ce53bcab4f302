// The loop: updates until the coordinator says stop, with validations, samples, checkpoints and
// records between them. Begun in run_start.cpp, gone back in recovery.cpp, ended in run_end.cpp.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "train/checkpointer.hpp"
#include "train/go_on.hpp"
#include "train/peak_memory.hpp"
#include "train/results.hpp"
#include "train/run.hpp"
#include "train/samples.hpp"
#include "train/snapshot.hpp"
#include "train/update.hpp"
#include "train/validation.hpp"
#include "train/watchdog.hpp"

namespace lorascale::train {

class Trainer {
 public:
  // `go_on`: what is asked of a run that goes on.
  Trainer(World& world, Session& session, GoOn go_on = {});

  // Runs to the end or until asked to stop. kDone, kStopped or kDiverged; other failures throw.
  ExitCode run(Watchdog& watchdog);

 private:
  ExitCode train_to_the_end();
  void start_from_nothing();
  void train_one(coordinator::StepPlan plan);
  UpdateResult make_update(coordinator::StepPlan* plan);
  UpdateResult attempt_update(const coordinator::StepPlan& plan);
  coordinator::StepPlan shrink(const coordinator::MemoryFacts& facts, std::int64_t leaf_size);
  void report_movement();
  [[nodiscard]] double elapsed_minutes() const;
  [[nodiscard]] MetricsLine metrics_line(const coordinator::StepPlan& plan,
                                         const UpdateResult& result) const;
  // run_start.cpp
  void open_run_folder(Watchdog& watchdog);
  void resume_or_start();
  void restore(const SnapshotFields& snapshot);
  [[nodiscard]] RunPast past() const;
  // recovery.cpp: back to the newest checkpoint after a divergence.
  void recover();
  // run_end.cpp
  ExitCode finish();
  void finish_status(const std::string& outcome, ExitCode code, const std::string& message);
  void report_missed_faults();
  void record_failure(ExitCode code, const std::string& message);

  World& world_;
  Session& session_;
  GoOn go_on_;
  Run run_;
  Checkpointer checkpoints_;
  Results results_;
  Validation validation_;
  Samples samples_;
  Updater updater_;
  data::LeafStream leaves_;
  PeakMemory peak_memory_;
  bool stop_requested_ = false;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  double minutes_before_ = 0;  // of earlier parts of a resumed run
};

}  // namespace lorascale::train
