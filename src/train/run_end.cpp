// The trainer's ways out of a run: the result in its folder, status.json, the last words.
#include <fmt/format.h>

#include "train/failure_report.hpp"
#include "train/trainer.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

namespace {

// Of a run that has diverged, with what to do.
std::string divergence_message(const Run& run) {
  const auto recoveries = run.coordinator->recoveries();
  return fmt::format(
      "training diverged at step {}{}; lower optimizer.lr, lengthen schedule.warmup or use another "
      "model.dtype than fp16, in another run.output_dir, with adapter.init_from if an adapter is "
      "worth keeping{}",
      run.coordinator->steps_done(),
      recoveries == 0
          ? ""
          : fmt::format(", after {} recover{}", recoveries, recoveries == 1 ? "y" : "ies"),
      run.session.recipe.max_recoveries > 0
          ? ""
          : ", or go on from the newest checkpoint with divergence.action: recover");
}

}  // namespace

void Trainer::record_failure(ExitCode code, const std::string& message) {
  write_failure_report(run_.folder, {world_.host.rank(), world_.host_name}, code, message);
  // Of a start that was refused, the folder still tells how the run before it ended.
  std::error_code unknown;
  const bool earlier = !run_.coordinator && code == ExitCode::kBadConfig &&
                       std::filesystem::exists(run_.folder / "status.json", unknown);
  if (world_.is_root() && !earlier) {
    // Failing to say it again must not hide what happened.
    const auto ignored = attempt([&] { run_.write_status("failed", code, message); });
  }
}

void Trainer::finish_status(const std::string& outcome, ExitCode code, const std::string& message) {
  run_.write_status(outcome, code, message);
  run_.record.say(code == ExitCode::kDiverged ? spdlog::level::err : spdlog::level::info, message);
  for (const auto& advice : run_.coordinator->advice_given()) {
    run_.record.say(spdlog::level::warn,
                    fmt::format("advice of step {}: {}", advice.step, advice.text));
  }
  world_.host.barrier();  // nobody leaves before everything durable is written
}

// A drill whose fault never comes has shown nothing.
void Trainer::report_missed_faults() {
  for (const auto& fault : run_.faults.missed(world_.host)) {
    run_.record.say(spdlog::level::warn,
                    "faults: '" + fault + "' never came: no rank was at that step and phase");
  }
}

ExitCode Trainer::finish() {
  peak_memory_.report(world_);
  const auto steps = run_.coordinator->steps_done();
  if (!run_.coordinator->stop_reason()) {
    finish_status(
        "stopped", ExitCode::kStopped,
        fmt::format("stopped on request after step {}; the checkpoint is saved, run again to go on",
                    steps));
    return ExitCode::kStopped;
  }
  if (run_.coordinator->stop_reason() == coordinator::StopReason::kDiverged) {
    report_missed_faults();
    finish_status("failed", ExitCode::kDiverged, divergence_message(run_));
    return ExitCode::kDiverged;
  }
  results_.write_final();
  samples_.show("after");
  root_alone(world_.host, [&] { run_.record.require_complete(); });
  results_.require_best();
  samples_.show_last();
  report_missed_faults();
  finish_status("done", ExitCode::kDone, fmt::format("done after {} steps", steps));
  if (run_.coordinator->stop_reason() == coordinator::StopReason::kBudget) {
    run_.record.say(spdlog::level::info,
                    "to have more of this run: " +
                        coordinator::ways_on(run_.coordinator->recipe(), run_.coordinator->tau()));
  }
  return ExitCode::kDone;
}

}  // namespace lorascale::train
