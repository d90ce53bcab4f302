// The trainer's way back after a divergence: parameters, optimizer, records and coordinator are
// those of the newest good checkpoint again, and the recovery is saved in its place before anything
// else, so that no end of the process makes the run forget it.
#include <fmt/format.h>

#include "base/error.hpp"
#include "io/checkpoint_retention.hpp"
#include "train/tensor_memory.hpp"
#include "train/trainer.hpp"

namespace lorascale::train {

void Trainer::recover() {
  const auto snapshot = load_newest_snapshot(
      world_, folder_ / "checkpoints", *session_.trainable.parameters, *session_.optimizer,
      [&](const SnapshotFields& saved) { require_same_run(saved); },
      coordinator_->recovered_step());
  together(world_.host, [&] {
    if (!snapshot) {
      throw_bad_input((folder_ / "checkpoints").string() +
                      " holds no checkpoint to go back to after a divergence: somebody removed "
                      "them; start again in another run.output_dir with a lower optimizer.lr");
    }
    coordinator_->recover(snapshot->coordinator_state);
  });
  record(coordinator::RecoveryFacts{snapshot->step, snapshot->coordinator_state});
  root_alone(world_.host, [&] { log_->go_back(coordinator_->steps_done()); });
  write_decisions();
  together_retrying(
      world_.host, [&] { faults_.reach(Phase::kRecovery); },
      [&](const Agreement& agreed) {
        release_cached_memory(world_.place);
        aside_out_of_memory({0, coordinator::AsideMemoryFacts::Task::kRecovery,
                             agreed.out_of_memory, agreed.first_rank, 0});
      });
  saved_step_ = -1;
  save_checkpoint(/*must_succeed=*/true, io::Existing::kReplaced);
  // Were one of them left by a kill, the run would diverge from it and come by here again.
  root_alone(world_.host, [&] {
    io::remove_checkpoints_after(folder_ / "checkpoints", coordinator_->steps_done());
  });
}

}  // namespace lorascale::train
