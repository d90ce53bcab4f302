// The loop: updates until the coordinator says stop, validations, samples, checkpoints and records
// between them. Begun in run_start.cpp, gone back in recovery.cpp, ended in run_end.cpp.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "io/run_lock.hpp"
#include "train/event_record.hpp"
#include "train/go_on.hpp"
#include "train/movement.hpp"
#include "train/peak_memory.hpp"
#include "train/run_log.hpp"
#include "train/session.hpp"
#include "train/snapshot.hpp"
#include "train/update.hpp"
#include "train/watchdog.hpp"

namespace lorascale::train {

class Trainer {
 public:
  // `go_on`: what is asked of a run that goes on.
  Trainer(World& world, Session& session, GoOn go_on = {});
  ~Trainer();

  // Runs to the end or until asked to stop. kDone, kStopped or kDiverged; other failures throw.
  ExitCode run(Watchdog& watchdog);

 private:
  ExitCode train_to_the_end();
  void open_run_folder(Watchdog& watchdog);
  [[nodiscard]] std::string change_of_data() const;
  void require_same_run(const SnapshotFields& saved) const;
  void require_nothing_to_lose() const;
  void resume_or_start();
  void restore(const SnapshotFields& snapshot);
  [[nodiscard]] RunPast past() const;
  void write(const std::vector<coordinator::Decision>& decisions);
  void write_decisions();
  UpdateResult attempt_update(const coordinator::StepPlan& plan);
  void record(const coordinator::Event& event);
  void report_movement();
  void give_up(const std::string& what);
  coordinator::StepPlan shrink(const coordinator::MemoryFacts& facts, std::int64_t leaf_size);
  void train_one(coordinator::StepPlan plan);
  std::optional<double> validate();
  [[nodiscard]] std::string continued_prompts() const;
  void show_samples(const std::string& when);
  void aside_out_of_memory(coordinator::AsideMemoryFacts facts);
  // How often a write on rank 0 failed that the run can go on without for a while.
  struct Tolerance {
    int failures_in_a_row = 0;
    std::optional<Error> lost;  // why the newest is not on disk
  };
  void write_alone(Tolerance* tolerance, const std::function<void()>& action);
  void save_checkpoint(bool must_succeed, io::Existing existing = io::Existing::kKept);
  // Back to the newest checkpoint after a divergence (recovery.cpp).
  void recover();
  [[nodiscard]] std::string divergence_message() const;
  void export_result(const std::filesystem::path& folder, Tolerance* tolerance);
  void export_final();
  void report_missed_faults();
  ExitCode finish();
  void record_failure(ExitCode code, const std::string& message);
  [[nodiscard]] double elapsed_minutes() const;
  [[nodiscard]] coordinator::Progress progress() const;
  [[nodiscard]] MetricsLine metrics_line(const coordinator::StepPlan& plan,
                                         const UpdateResult& result) const;
  void finish_status(const std::string& outcome, ExitCode code, const std::string& message);

  World& world_;
  Session& session_;
  GoOn go_on_;
  std::filesystem::path folder_;
  std::unique_ptr<io::RunLock> lock_;
  std::optional<coordinator::Coordinator> coordinator_;
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<EventRecord> events_;  // of rank 0; null where the run cannot be recorded
  std::unique_ptr<Progress> progress_;
  std::int64_t evaluation_leaf_;
  PeakMemory peak_memory_;
  FaultInjector faults_;
  Updater updater_;
  MovementMeter movement_;
  coordinator::Cadence checkpoint_cadence_, evaluate_cadence_, sample_cadence_;
  std::optional<double> last_validation_;
  std::int64_t validated_step_ = -1;
  std::int64_t saved_step_ = -1;  // or tried to
  bool checkpoint_owed_ = false;  // due, but the state was no good
  Tolerance checkpoint_writes_, best_writes_;
  bool stop_requested_ = false;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  double minutes_before_ = 0;  // of earlier parts of a resumed run
};

}  // namespace lorascale::train
