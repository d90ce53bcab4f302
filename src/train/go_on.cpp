#include "train/go_on.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/error.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/rates/schedule.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/durable_file.hpp"
#include "io/file_descriptor.hpp"
#include "io/untrusted_text.hpp"
#include "train/snapshot.hpp"

namespace lorascale::train {
namespace {

namespace fs = std::filesystem;
using coordinator::Leg;
using coordinator::Recipe;

constexpr const char* kOriginFile = "origin.json";  // of a folder that was forked
constexpr std::uint64_t kMaxRecordBytes = std::uint64_t{4} << 30;
constexpr std::uint64_t kMaxStatusBytes = std::uint64_t{1} << 20;

// Samples of `amount` more than `end`. Steps are counted from there, where an epoch may be under
// way.
std::int64_t samples_beyond(std::int64_t end, const Amount& amount, UnitContext units) {
  if (amount.unit != Unit::kSteps || units.samples_per_epoch <= 0) {
    return to_samples(amount, units);
  }
  const std::int64_t begun = end % units.samples_per_epoch;
  const auto steps_before =
      static_cast<double>((begun + units.global_batch - 1) / units.global_batch);
  return to_samples({steps_before + amount.value, Unit::kSteps}, units) - begun;
}

// Where the run would end without its last leg.
std::int64_t end_before(const Recipe& recipe) {
  return recipe.legs.size() > 1 ? recipe.legs[recipe.legs.size() - 2].end : recipe.first_leg_end;
}

std::int64_t at_least_one(std::int64_t samples, const char* option, const Amount& amount) {
  if (samples < 1) {
    throw_bad_config(fmt::format("{} {} is not one sample; use more", option, to_string(amount)));
  }
  return samples;
}

// Samples of a cooldown that begins at `position`.
std::int64_t cooldown_samples(double position, const Amount& length, UnitContext units) {
  const std::int64_t samples =
      length.unit == Unit::kFraction
          ? coordinator::cooldown_samples(position, length.value)
          : samples_beyond(static_cast<std::int64_t>(position), length, units);
  return at_least_one(samples, "--cooldown", length);
}

bool granted_before(const coordinator::Coordinator& run, const GoOn& wish, const Session& session,
                    const RunPast& past) {
  const Recipe& recipe = run.recipe();
  if (recipe.legs.size() <= past.legs_of_source) {
    return false;
  }
  const Leg& last = recipe.legs.back();
  if (wish.cooldown) {
    if (last.cause != Leg::Cause::kCooldown) {
      return false;
    }
    const auto wished = coordinator::cooldown_leg(
        recipe, last.begin, cooldown_samples(last.begin, *wish.cooldown, session.units));
    if (last.end != wished.end) {
      throw_bad_config(fmt::format(
          "--cooldown: the run ends by a cooldown of another length already, from sample {:.0f} to "
          "{}; name another folder with --into",
          last.begin, last.end));
    }
    return true;
  }
  const std::int64_t end = end_before(recipe);
  return last.cause == Leg::Cause::kMore &&
         last.end - end == samples_beyond(end, *wish.more, session.units) &&
         !(run.stop_reason() && past.results_written);
}

Leg leg_for_more(const coordinator::Coordinator& run, const GoOn& wish, const Session& session) {
  const Recipe& recipe = run.recipe();
  const std::int64_t samples = at_least_one(
      samples_beyond(recipe.budget_samples, *wish.more, session.units), "--more", *wish.more);
  UnitContext leg = session.units;  // a leg's percentages are of the leg
  leg.budget_samples = recipe.budget_samples + samples - static_cast<std::int64_t>(run.tau());
  const auto& schedule = session.config.schedule;
  const Leg added =
      coordinator::leg_for_more(recipe, run.tau(), samples, wish.leg_start,
                                to_samples(schedule.warmup, leg), to_samples(schedule.decay, leg));
  if (added.peak <= 0) {
    throw_bad_config(
        "--leg-rate present: the schedule has taken the rate down to 0, and nothing is learnt at "
        "that; leave it out or give peak, which lets the rate rise again, or go on from an earlier "
        "checkpoint with --at-step N");
  }
  return added;
}

Leg cooldown_leg(const coordinator::Coordinator& run, const GoOn& wish, const Session& session) {
  const Recipe& recipe = run.recipe();
  const Leg leg = coordinator::cooldown_leg(
      recipe, run.tau(), cooldown_samples(run.tau(), *wish.cooldown, session.units));
  if (leg.from <= recipe.floor) {
    throw_bad_config(fmt::format(
        "--cooldown takes the rate down to its floor, and at sample {} the {} schedule has it "
        "there already; choose an earlier checkpoint with --at-step N",
        run.samples_seen(), coordinator::name_of(recipe.schedule)));
  }
  return leg;
}

// The checkpoint to go on from.
io::Checkpoint chosen_checkpoint(const GoOn& wish) {
  const fs::path folder = *wish.source / "checkpoints";
  const auto steps = io::list_checkpoints(folder);
  if (steps.empty()) {
    throw_bad_config(
        fmt::format("{} holds no checkpoint to go on from: is it the run's folder "
                    "(run.output_dir)?",
                    wish.source->string()));
  }
  if (wish.at_step) {
    if (std::ranges::find(steps, *wish.at_step) == steps.end()) {
      throw_bad_config(
          fmt::format("{} holds no checkpoint of step {}, but of {} (checkpoint.keep "
                      "says how many stay)",
                      folder.string(), *wish.at_step, fmt::join(steps, ", ")));
    }
    return io::Checkpoint(folder / io::checkpoint_name(*wish.at_step));
  }
  auto newest = io::find_newest_valid(folder);
  if (!newest.checkpoint) {
    throw_bad_input(fmt::format("{}: every checkpoint is damaged (newest: {})", folder.string(),
                                newest.skipped.front().reason));
  }
  return std::move(*newest.checkpoint);
}

// Whether best/ of the source is that of the checkpoint: no better one was found after it.
bool best_is_of(const std::string& decisions, const SnapshotFields& fields) {
  using Json = nlohmann::json;
  const Json state = Json::parse(fields.coordinator_state, nullptr, /*allow_exceptions=*/false);
  const auto sequence = state.value("/log/sequence"_json_pointer, std::int64_t{-1});
  std::istringstream lines(decisions);
  for (std::string line; std::getline(lines, line);) {
    const Json decision = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (decision.is_object() && decision.value("kind", "") == "best" &&
        decision.value("sequence", std::int64_t{0}) > sequence) {
      return false;
    }
  }
  return sequence >= 0;
}

struct ForkOrigin {
  std::string run;
  std::int64_t step = 0;
  std::size_t legs = 0;
};

// Nothing where the folder is no fork's, or nobody can tell.
std::optional<ForkOrigin> origin_of(const fs::path& folder) {
  using Json = nlohmann::json;
  if (!fs::exists(folder / kOriginFile)) {
    return std::nullopt;
  }
  const Json json = Json::parse(io::read_file(folder / kOriginFile, kMaxStatusBytes), nullptr,
                                /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("run") || !json["run"].is_string() ||
      !json.contains("step") || !json["step"].is_number_integer()) {
    return std::nullopt;
  }
  ForkOrigin origin{json["run"].get<std::string>(), json["step"].get<std::int64_t>(), 0};
  if (json.contains("legs") && json["legs"].is_number_unsigned()) {  // not so in earlier versions
    origin.legs = json["legs"].get<std::size_t>();
  }
  return origin;
}

// What another run left is not overwritten; what an earlier fork began is.
void require_room(const fs::path& folder) {
  if (fs::exists(folder / kOriginFile)) {
    return;
  }
  for (const char* name : {"config.yaml", "metrics.jsonl", "adapter", "model", "best"}) {
    if (fs::exists(folder / name)) {
      throw_bad_config(fmt::format("--into: {} holds {} of another run; name another folder",
                                   folder.string(), name));
    }
  }
}

// Whether the fork in `folder`, whose newest checkpoint is of step `newest`, is under way. One that
// was refused before its first update is not, and may be made of another checkpoint.
bool has_begun(const GoOn& wish, const fs::path& folder, std::int64_t newest) {
  const auto origin = origin_of(folder);
  if (!origin) {
    return true;  // a run of its own, which goes on as it is
  }
  if (newest <= origin->step) {
    const io::Checkpoint copy(folder / "checkpoints" / io::checkpoint_name(newest));
    const auto fields = read_snapshot_fields(copy);
    const auto terms = coordinator::Coordinator::saved_terms(fields.coordinator_state);
    if (terms.recipe.legs.size() <= origin->legs) {
      return false;
    }
  }
  std::error_code ignored;
  const bool other =
      (wish.at_step && *wish.at_step != origin->step) ||
      fs::weakly_canonical(*wish.source, ignored) != fs::weakly_canonical(origin->run, ignored);
  if (other) {
    throw_bad_config(
        fmt::format("--into: {} went on from step {} of {} and is under way; name another folder",
                    folder.string(), origin->step, origin->run));
  }
  return true;
}

void copy_best(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::remove_all(to, error);
  fs::copy(from, to, fs::copy_options::recursive, error);
  if (error) {
    throw Error(ExitCode::kCannotWrite, fmt::format("{} could not be copied to {}: {}",
                                                    from.string(), to.string(), error.message()));
  }
}

}  // namespace

RunPast read_past(const fs::path& folder) {
  RunPast past;
  if (fs::exists(folder / "status.json")) {
    const auto status =
        nlohmann::json::parse(io::read_file(folder / "status.json", kMaxStatusBytes), nullptr,
                              /*allow_exceptions=*/false);
    past.results_written =
        status.is_object() && status.contains("outcome") && status["outcome"] == "done";
  }
  if (const auto origin = origin_of(folder)) {
    past.legs_of_source = origin->legs;
  }
  return past;
}

std::optional<Leg> leg_to_add(const coordinator::Coordinator& run, const GoOn& wish,
                              const Session& session, const RunPast& past) {
  if (!wish.adds_leg() || granted_before(run, wish, session, past)) {
    return std::nullopt;
  }
  const auto stop = run.stop_reason();
  if (stop && *stop != coordinator::StopReason::kBudget) {
    throw_bad_config(fmt::format(
        "the run is over, and not for want of budget, after step {}; a new leg cannot change that: "
        "go on from an earlier checkpoint (--into FOLDER --at-step N), or start a new run with "
        "adapter.init_from",
        run.steps_done()));
  }
  if (wish.more && run.recipe().budget_samples == coordinator::kNoSampleLimit) {
    throw_bad_config(
        "--more goes on beyond a budget in samples, and this one is in minutes: "
        "raise budget");
  }
  return wish.more ? leg_for_more(run, wish, session) : cooldown_leg(run, wish, session);
}

void fork_run(const GoOn& wish, const fs::path& folder, const io::RunLock& lock) {
  const auto own = io::list_checkpoints(folder / "checkpoints");
  if (!own.empty() && has_begun(wish, folder, own.back())) {
    return;
  }
  require_room(folder);
  const io::Checkpoint checkpoint = chosen_checkpoint(wish);
  std::error_code ignored;
  fs::remove_all(folder / "checkpoints", ignored);  // of a fork that was refused
  const SnapshotFields fields = read_snapshot_fields(checkpoint);
  const auto terms = coordinator::Coordinator::saved_terms(fields.coordinator_state);
  const nlohmann::ordered_json origin = {
      {"run", io::json_text(fs::absolute(*wish.source).string())},
      {"step", checkpoint.step()},
      {"legs", terms.recipe.legs.size()}};
  io::write_file_atomically(folder / kOriginFile, std::string_view(origin.dump(2) + "\n"));
  std::string decisions;
  for (const char* name : {"metrics.jsonl", "decisions.jsonl", "events.jsonl"}) {
    const fs::path record = *wish.source / name;
    if (fs::exists(record)) {  // what is missing is said when the run goes on
      const std::string text = io::read_file(record, kMaxRecordBytes);
      io::write_file_atomically(folder / name, std::string_view(text));
      decisions = std::string_view(name) == "decisions.jsonl" ? text : decisions;
    }
  }
  if (fs::is_directory(*wish.source / "best") && best_is_of(decisions, fields)) {
    copy_best(*wish.source / "best", folder / "best");
  }
  io::CheckpointWriter writer(folder / "checkpoints", checkpoint.step(), lock.generation());
  for (const auto& file : checkpoint.files()) {
    const auto bytes = checkpoint.read(file.name);
    writer.add(file.name, std::span(bytes));
  }
  writer.commit(checkpoint.fields(), [&] { lock.check_still_owner(); });
  spdlog::info("{} goes on from {}", folder.string(), checkpoint.folder().string());
}

}  // namespace lorascale::train
