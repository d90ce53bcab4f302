// The trainer's way into a run: the folder it owns from here on, the checkpoint it goes on from or
// the start from nothing, and the records it goes on writing.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "base/logging.hpp"
#include "config/resolved.hpp"
#include "io/checkpoint_retention.hpp"
#include "io/durable_file.hpp"
#include "train/data_preparation.hpp"
#include "train/failure_report.hpp"
#include "train/leaf_probe.hpp"
#include "train/same_run.hpp"
#include "train/snapshot.hpp"
#include "train/trainer.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

void Trainer::open_run_folder(Watchdog& watchdog) {
  root_alone(world_.host, [&] {
    run_.lock = std::make_unique<io::RunLock>(run_.folder);
    io::remove_leftovers(run_.folder / "checkpoints");
    remove_failure_reports(run_.folder);
    if (go_on_.source) {
      fork_run(go_on_, run_.folder, *run_.lock);
    }
    log_to_file(run_.folder / "log.txt");
  });
  together(world_.host, [&] {
    if (!world_.is_root()) {
      log_to_file(run_.folder / ("log-rank" + std::to_string(world_.host.rank()) + ".txt"));
    }
  });
  watchdog.on_hang([folder = run_.folder, place = Place{world_.host.rank(), world_.host_name}](
                       const std::string& message) {
    write_failure_report(folder, place, ExitCode::kHang, message);
  });
}

// What rank 0 reads in the run's folder, on every rank.
RunPast Trainer::past() const {
  std::string told;
  root_alone(world_.host, [&] {
    const RunPast past = read_past(run_.folder);
    told = nlohmann::json{past.results_written, past.legs_of_source}.dump();
  });
  world_.host.broadcast_from_root(told);
  const auto values = nlohmann::json::parse(told);
  return {values[0].get<bool>(), values[1].get<std::size_t>()};
}

// The coordinator as it was saved, with the leg that is asked for. What the first start fixed in
// samples stays.
void Trainer::restore(const SnapshotFields& snapshot) {
  const RunPast before = go_on_.adds_leg() ? past() : RunPast{};
  together(world_.host, [&] {
    const auto& state = snapshot.coordinator_state;
    auto& recipe = session_.recipe;
    const int ranks = world_.host.size();
    // Ours only once nothing is refused any more: see record_failure.
    auto restored = coordinator::Coordinator::restore(recipe, ranks, state);
    const auto leg = leg_to_add(restored, go_on_, session_, before);
    if (leg) {
      recipe = coordinator::with_leg(recipe, *leg);
      restored = coordinator::Coordinator::restore(recipe, ranks, state);
    }
    run_.coordinator = std::move(restored);
    // Saved at once where it has a new leg: no start without the option forgets that.
    checkpoints_.is_at(leg ? -1 : snapshot.step);
    run_.faults.resumed_after(snapshot.step);
    minutes_before_ = run_.coordinator->elapsed_minutes();
    if (world_.is_root()) {
      spdlog::info("resumed at step {} ({} samples), saved by {} rank(s)", snapshot.step,
                   snapshot.samples, snapshot.world_size);
      if (go_on_.adds_leg() && checkpoints_.saved_any()) {
        spdlog::info("the leg that is asked for began at sample {:.0f}; it goes on",
                     recipe.legs.back().begin);
      }
    }
  });
}

void Trainer::resume_or_start() {
  std::optional<SnapshotFields> snapshot;
  if (session_.config.run.resume == config::Resume::kAuto) {
    snapshot =
        load_newest_snapshot(world_, run_.folder / "checkpoints", session_.state(),
                             [&](const SnapshotFields& saved) { require_same_run(run_, saved); });
  }
  if (!snapshot) {
    root_alone(world_.host, [&] { require_nothing_to_lose(run_); });
  }
  together(world_.host, [&] {
    if (snapshot) {
      const auto saved = coordinator::Coordinator::saved_terms(snapshot->coordinator_state);
      session_.recipe = coordinator::continued(saved.recipe, session_.recipe, saved.position);
    } else if (go_on_.adds_leg()) {
      throw_bad_config(run_.folder.string() +
                       " holds no checkpoint of a run that could go on: start it without --more");
    }
  });
  std::optional<coordinator::LeafFacts> leaf;
  if (!session_.config.batch.micro) {
    leaf =
        settle_leaf(world_, session_, updater_, snapshot ? &snapshot->coordinator_state : nullptr);
    validation_.begin_with(session_.recipe.leaf_size);
  }
  if (snapshot) {
    restore(*snapshot);
  } else {
    together(world_.host, [&] { run_.coordinator.emplace(session_.recipe, world_.host.size()); });
  }
  root_alone(world_.host, [&] {
    io::write_file_atomically(run_.folder / "config.yaml",
                              std::string_view(config::write_for_run_folder(session_.config)));
    write_data_record(run_.folder, session_.files);
    run_.record.open(*run_.coordinator, session_.workload->words(), snapshot.has_value());
  });
  if (snapshot) {
    const auto& words = session_.workload->words();
    const auto before = coordinator::Coordinator::saved_leaf_size(snapshot->coordinator_state);
    if (words.leaves_differ(before, session_.recipe.leaf_size)) {
      run_.record.say(spdlog::level::warn,
                      fmt::format("{}: with leaves of {} in place of {} the run is another from "
                                  "here on than one that keeps them",
                                  words.leaf_matters, session_.recipe.leaf_size, before));
    }
  }
  if (leaf) {
    leaf->step = run_.coordinator->steps_done();
    run_.tell(*leaf);
    run_.write_decisions();
  }
  if (snapshot && !checkpoints_.saved_any()) {
    checkpoints_.save(/*must_succeed=*/true, io::Existing::kReplaced);
  }
}

}  // namespace lorascale::train
