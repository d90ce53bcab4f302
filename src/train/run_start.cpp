// The trainer's way into a run: the folder it owns from here on, the checkpoint it goes on from or
// the start from nothing, and the records it goes on writing.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/logging.hpp"
#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/checkpoint_retention.hpp"
#include "io/durable_file.hpp"
#include "train/data_preparation.hpp"
#include "train/failure_report.hpp"
#include "train/leaf_probe.hpp"
#include "train/snapshot.hpp"
#include "train/trainer.hpp"

namespace lorascale::train {

void Trainer::open_run_folder(Watchdog& watchdog) {
  root_alone(world_.host, [&] {
    lock_ = std::make_unique<io::RunLock>(folder_);
    io::remove_leftovers(folder_ / "checkpoints");
    remove_failure_reports(folder_);
    if (go_on_.source) {
      fork_run(go_on_, folder_, *lock_);
    }
    log_to_file(folder_ / "log.txt");
  });
  together(world_.host, [&] {
    if (!world_.is_root()) {
      log_to_file(folder_ / ("log-rank" + std::to_string(world_.host.rank()) + ".txt"));
    }
  });
  watchdog.on_hang([folder = folder_, place = Place{world_.host.rank(), world_.host_name}](
                       const std::string& message) {
    write_failure_report(folder, place, ExitCode::kHang, message);
  });
}

// What became another since the run began, where the training set was prepared from files then and
// now: " (a.txt changed)".
std::string Trainer::change_of_data() const {
  const auto key = "data.train";
  if (!session_.files.records.contains(key)) {
    return {};
  }
  try {
    const auto before = read_data_record(folder_);
    const auto what =
        prepare::difference(before.at("prepared").at(key), session_.files.records.at(key));
    return what.empty() ? what : " (" + what + " since)";
  } catch (const nlohmann::json::exception&) {  // was made from a token file then, or edited
    return {};
  }
}

void Trainer::require_same_run(const SnapshotFields& saved) const {
  const auto refuse = [&](const std::string& what) {
    throw_bad_config(folder_.string() + " belongs to another run: " + what +
                     "; choose another run.output_dir, or run as " +
                     (folder_ / "config.yaml").string() + " says");
  };
  const auto before = config::read_config_text(saved.config, "the checkpoint").config;
  const auto changed = config::differences(before, session_.config, config::Scope::kFixedOnResume);
  if (!changed.empty()) {
    refuse(config::to_string(changed));
  }
  if (saved.data_fingerprint != session_.train->fingerprint() &&
      saved.data_fingerprint == session_.train->dataset_fingerprint()) {
    throw_bad_config(folder_.string() +
                     " was begun by a version that trained on rows without a "
                     "target too, and " +
                     session_.train->left_out_text() +
                     "; they are left out now, so the run cannot go on as it began: end it with "
                     "that version, or begin anew in another run.output_dir, with "
                     "adapter.init_from if what it learned is worth keeping");
  }
  if (saved.data_fingerprint != session_.train->fingerprint()) {
    refuse("the training set " + session_.config.data.train + " is not the one it began with" +
           change_of_data());
  }
  if (saved.model_fingerprint != session_.model_fingerprint) {
    refuse("the base model " + session_.config.model.path + " is not the one it began with");
  }
}

// Of a run that starts from nothing: an earlier one in the folder may have died early, and is
// overwritten. What is a result is not, unless the same run makes it again.
void Trainer::require_nothing_to_lose() const {
  const auto refuse = [&](const std::string& why) {
    throw_bad_config(folder_.string() + " holds " + why +
                     "; choose another run.output_dir or remove it");
  };
  const bool results = std::ranges::any_of(
      std::array{"adapter", "model", "best"},
      [&](const char* name) { return std::filesystem::is_directory(folder_ / name); });
  const bool anew = session_.config.run.resume != "auto";
  if (anew && (results || !io::list_checkpoints(folder_ / "checkpoints").empty())) {
    refuse("checkpoints or results of an earlier run, and run.resume is " +
           session_.config.run.resume);
  }
  if (!results) {
    return;
  }
  const auto file = folder_ / "config.yaml";
  if (!std::filesystem::exists(file)) {
    refuse("results (adapter/, best/ or model/) of an unknown origin");
  }
  const auto before = config::read_config_file(file).config;
  const auto changed = config::differences(before, session_.config, config::Scope::kFixedOnResume);
  if (!changed.empty()) {
    refuse("results of another run, without its checkpoints: " + config::to_string(changed));
  }
  spdlog::warn("{} holds results of this run, but no checkpoint: it starts again from nothing",
               folder_.string());
}

// What rank 0 reads in the run's folder, on every rank.
RunPast Trainer::past() const {
  std::string told;
  root_alone(world_.host, [&] {
    const RunPast past = read_past(folder_);
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
    coordinator_ = std::move(restored);
    if (leg) {
      saved_step_ = -1;  // saved at once: no start without the option forgets the leg
    } else {
      saved_step_ = snapshot.step;
    }
    faults_.resumed_after(snapshot.step);
    minutes_before_ = coordinator_->elapsed_minutes();
    if (world_.is_root()) {
      spdlog::info("resumed at step {} ({} samples), saved by {} rank(s)", snapshot.step,
                   snapshot.samples, snapshot.world_size);
      if (go_on_.adds_leg() && saved_step_ >= 0) {
        spdlog::info("the leg that is asked for began at sample {:.0f}; it goes on",
                     recipe.legs.back().begin);
      }
    }
  });
}

void Trainer::resume_or_start() {
  std::optional<SnapshotFields> snapshot;
  if (session_.config.run.resume == "auto") {
    snapshot = load_newest_snapshot(world_, folder_ / "checkpoints", *session_.trainable.parameters,
                                    *session_.optimizer,
                                    [&](const SnapshotFields& saved) { require_same_run(saved); });
  }
  if (!snapshot) {
    root_alone(world_.host, [&] { require_nothing_to_lose(); });
  }
  together(world_.host, [&] {
    if (snapshot) {
      const auto saved = coordinator::Coordinator::saved_terms(snapshot->coordinator_state);
      session_.recipe = coordinator::continued(saved.recipe, session_.recipe, saved.position);
    } else if (go_on_.adds_leg()) {
      throw_bad_config(folder_.string() +
                       " holds no checkpoint of a run that could go on: start it without --more");
    }
  });
  std::optional<coordinator::LeafFacts> leaf;
  if (!session_.config.batch.micro) {
    leaf =
        settle_leaf(world_, session_, updater_, snapshot ? &snapshot->coordinator_state : nullptr);
    evaluation_leaf_ = session_.recipe.leaf_size;
  }
  if (snapshot) {
    restore(*snapshot);
  } else {
    together(world_.host, [&] { coordinator_.emplace(session_.recipe, world_.host.size()); });
  }
  root_alone(world_.host, [&] {
    io::write_file_atomically(folder_ / "config.yaml",
                              std::string_view(config::write_for_run_folder(session_.config)));
    write_data_record(folder_, session_.files);
    const auto decisions = coordinator_->take_decisions();
    const auto first = decisions.empty() ? 0 : decisions.front().sequence;
    // A start from nothing keeps nothing: not even the line of step 0 of a run that died early.
    log_ = std::make_unique<RunLog>(folder_, snapshot ? coordinator_->steps_done() : -1, first);
    events_ = open_event_record(folder_ / "events.jsonl", *coordinator_, snapshot.has_value());
    const auto& recipe = session_.recipe;
    progress_ = std::make_unique<Progress>(recipe.budget_samples == coordinator::kNoSampleLimit
                                               ? std::nullopt
                                               : std::optional(coordinator_->steps_expected()),
                                           recipe.budget_minutes);
    write(decisions);
  });
  if (leaf) {
    leaf->step = coordinator_->steps_done();
    coordinator_->on_leaf_measured(*leaf);
    record(*leaf);
    write_decisions();
  }
  if (snapshot && saved_step_ < 0) {
    save_checkpoint(/*must_succeed=*/true, io::Existing::kReplaced);
  }
}

}  // namespace lorascale::train
