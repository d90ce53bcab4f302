// The trainer's way back after a divergence: parameters, optimizer, records and coordinator are
// those of the newest good checkpoint again, and the recovery is saved in its place before anything
// else, so that no end of the process makes the run forget it.
#include "base/error.hpp"
#include "io/checkpoint_retention.hpp"
#include "train/same_run.hpp"
#include "train/tensor_memory.hpp"
#include "train/trainer.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

void Trainer::recover() {
  const auto checkpoints = run_.folder / "checkpoints";
  const auto snapshot = load_newest_snapshot(
      world_, checkpoints, session_.state(),
      [&](const SnapshotFields& saved) { require_same_run(run_, saved); },
      run_.coordinator->recovered_step());
  together(world_.host, [&] {
    if (!snapshot) {
      throw_bad_input(checkpoints.string() +
                      " holds no checkpoint to go back to after a divergence: somebody removed "
                      "them; start again in another run.output_dir with a lower optimizer.lr");
    }
    run_.tell(coordinator::RecoveryFacts{snapshot->step, snapshot->coordinator_state});
  });
  root_alone(world_.host, [&] { run_.record.go_back(run_.coordinator->steps_done()); });
  run_.write_decisions();
  together_retrying(
      world_.host, [&] { run_.faults.reach(Phase::kRecovery); },
      [&](const Agreement& agreed) {
        release_cached_memory(world_.place);
        run_.tell_aside_out_of_memory({0, coordinator::AsideMemoryFacts::Task::kRecovery,
                                       agreed.out_of_memory, agreed.first_rank, 0});
      });
  checkpoints_.is_at(-1);
  checkpoints_.save(/*must_succeed=*/true, io::Existing::kReplaced);
  // Were one of them left by a kill, the run would diverge from it and come by here again.
  root_alone(world_.host,
             [&] { io::remove_checkpoints_after(checkpoints, run_.coordinator->steps_done()); });
}

}  // namespace lorascale::train
