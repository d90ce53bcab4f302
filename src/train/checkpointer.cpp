#include "train/checkpointer.hpp"

#include <fmt/format.h>

#include "config/resolved.hpp"
#include "io/checkpoint_retention.hpp"
#include "train/snapshot.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"

namespace lorascale::train {
namespace {

constexpr int kMaxFailedWrites = 3;

}  // namespace

void write_alone(Run& run, Tolerance* tolerance, const std::function<void()>& action) {
  root_alone(run.world.host, [&] {
    const auto error = attempt(action);
    if (error && (tolerance == nullptr || error->code() != ExitCode::kCannotWrite ||
                  tolerance->failures_in_a_row + 1 == kMaxFailedWrites)) {
      throw Error(*error);
    }
    if (tolerance != nullptr) {
      tolerance->failures_in_a_row = error ? tolerance->failures_in_a_row + 1 : 0;
      tolerance->lost = error;
    }
    if (error) {
      run.record.say(spdlog::level::warn, std::string(error->what()) + "; training goes on");
    }
  });
}

void Checkpointer::save(bool must_succeed, io::Existing existing) {
  const auto& coordinator = *run_.coordinator;
  const auto step = coordinator.steps_done();
  if (saved_step_ == step) {
    return;
  }
  const auto& session = run_.session;
  const auto folder = run_.folder / "checkpoints";
  write_alone(run_, must_succeed ? nullptr : &tolerance_, [&] {
    save_snapshot(
        folder,
        {step, coordinator.samples_seen(), run_.world.host.size(),
         config::write_for_run_folder(session.config), session.workload->train().fingerprint(),
         session.workload->model_fingerprint(), coordinator.state()},
        session.state(), *run_.lock, existing);
    io::prune_checkpoints(folder, static_cast<int>(session.config.checkpoint.keep));
    run_.write_status("running", ExitCode::kDone, "checkpoint saved");
  });
  saved_step_ = step;
  owed_ = false;
}

bool Checkpointer::due(const coordinator::Progress& before, const coordinator::Progress& after) {
  owed_ = owed_ || cadence_.due(before, after);
  return owed_ && !run_.coordinator->in_trouble();
}

void Checkpointer::give_up(const std::string& what) {
  if (run_.coordinator->stop_reason() != coordinator::StopReason::kDiverged) {
    save(/*must_succeed=*/true);
  }
  const auto message =
      fmt::format("{}; {}; what was trained so far is in {}", what, memory_remedy(run_.world.place),
                  (run_.folder / "checkpoints").string());
  together(run_.world.host, [&] { throw_bad_config(message); });
  throw Error(ExitCode::kInternal, message);  // not reached: all ranks have thrown
}

}  // namespace lorascale::train
