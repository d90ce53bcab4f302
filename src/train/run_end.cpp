// The trainer's ways out of a run: the result in its folder, status.json, the last words.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "adapters/full_export.hpp"
#include "adapters/peft_format.hpp"
#include "train/averaged_weights.hpp"
#include "train/failure_report.hpp"
#include "train/trainer.hpp"

namespace lorascale::train {

void Trainer::export_result(const std::filesystem::path& folder, Tolerance* tolerance) {
  write_alone(tolerance, [&] {
    if (session_.trainable.is_full()) {
      adapters::write_full_model(folder, session_.model->parameter_slots(),
                                 session_.config.model.path, session_.train->answer_end_id());
    } else {
      adapters::write_peft_adapter(folder, session_.trainable.modules,
                                   session_.model->linear_groups(), session_.trainable.lora,
                                   *session_.trainable.parameters, session_.config.model.path,
                                   session_.train->answer_end_id());
    }
  });
}

// The average where there is one, and then what was trained last beside it.
void Trainer::export_final() {
  const std::string name = session_.trainable.is_full() ? "model" : "adapter";
  bool differs = false;
  {
    const AveragedWeights averaged(session_.average, *session_.trainable.parameters);
    differs = averaged.in_place();
    export_result(folder_ / name, nullptr);
  }
  if (differs) {
    export_result(folder_ / (name + "-last"), nullptr);
  } else if (session_.average != nullptr && world_.is_root()) {
    progress_->clear();
    spdlog::warn("the run ended before average.start: {}/ holds the last weights, no average",
                 name);
  }
}

void Trainer::record_failure(ExitCode code, const std::string& message) {
  write_failure_report(folder_, {world_.host.rank(), world_.host_name}, code, message);
  // Of a start that was refused, the folder still tells how the run before it ended.
  std::error_code unknown;
  const bool earlier = !coordinator_ && code == ExitCode::kBadConfig &&
                       std::filesystem::exists(folder_ / "status.json", unknown);
  if (world_.is_root() && !earlier) {
    // Failing to say it again must not hide what happened.
    const auto ignored = attempt([&] {
      write_status(folder_, "failed", code, coordinator_ ? coordinator_->steps_done() : 0,
                   lock_->generation(), message);
    });
  }
}

std::string Trainer::divergence_message() const {
  const auto recoveries = coordinator_->recoveries();
  return fmt::format(
      "training diverged at step {}{}; lower optimizer.lr, lengthen schedule.warmup or use another "
      "model.dtype than fp16, in another run.output_dir, with adapter.init_from if an adapter is "
      "worth keeping{}",
      coordinator_->steps_done(),
      recoveries == 0
          ? ""
          : fmt::format(", after {} recover{}", recoveries, recoveries == 1 ? "y" : "ies"),
      session_.recipe.max_recoveries > 0
          ? ""
          : ", or go on from the newest checkpoint with divergence.action: recover");
}

void Trainer::finish_status(const std::string& outcome, ExitCode code, const std::string& message) {
  if (world_.is_root()) {
    progress_->clear();
    write_status(folder_, outcome, code, coordinator_->steps_done(), lock_->generation(), message);
    spdlog::log(code == ExitCode::kDiverged ? spdlog::level::err : spdlog::level::info, "{}",
                message);
    for (const auto& advice : coordinator_->advice_given()) {
      spdlog::warn("advice of step {}: {}", advice.step, advice.text);
    }
  }
  world_.host.barrier();  // nobody leaves before everything durable is written
}

// A drill whose fault never comes has shown nothing.
void Trainer::report_missed_faults() {
  for (const auto& fault : faults_.missed(world_.host)) {
    if (world_.is_root()) {
      progress_->clear();
      spdlog::warn("faults: '{}' never came: no rank was at that step and phase", fault);
    }
  }
}

ExitCode Trainer::finish() {
  peak_memory_.report(world_);
  const auto steps = coordinator_->steps_done();
  if (!coordinator_->stop_reason()) {
    finish_status(
        "stopped", ExitCode::kStopped,
        fmt::format("stopped on request after step {}; the checkpoint is saved, run again to go on",
                    steps));
    return ExitCode::kStopped;
  }
  if (coordinator_->stop_reason() == coordinator::StopReason::kDiverged) {
    report_missed_faults();
    finish_status("failed", ExitCode::kDiverged, divergence_message());
    return ExitCode::kDiverged;
  }
  export_final();
  show_samples("after");
  root_alone(world_.host, [&] {
    log_->require_complete();
    if (events_) {
      events_->require_complete();
    }
    if (best_writes_.lost) {
      throw Error(*best_writes_.lost);
    }
  });
  report_missed_faults();
  finish_status("done", ExitCode::kDone, fmt::format("done after {} steps", steps));
  return ExitCode::kDone;
}

}  // namespace lorascale::train
