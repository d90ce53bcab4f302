// `inspect RUN_FOLDER --replay`: the facts of events.jsonl, told to a new coordinator, must lead to
// decisions.jsonl byte for byte and to the state that the newest checkpoint holds.
#include <fmt/format.h>

#include <array>
#include <iostream>
#include <span>

#include "base/error.hpp"
#include "cli/run_records.hpp"
#include "coordinator/record/decision_log.hpp"
#include "coordinator/record/recipe_json.hpp"

namespace lorascale::cli {
namespace {

namespace fs = std::filesystem;

// What the coordinator has learned to remember since runs were saved that lack it, by the places in
// its state. All else is compared.
constexpr std::array kRememberedSince = {"/log/advice/validations/since_best"};

bool is_state_of(const std::string& saved, const std::string& again) {
  const auto then = coordinator::Json::parse(saved);
  auto now = coordinator::Json::parse(again);
  for (const auto* place : kRememberedSince) {
    const coordinator::Json::json_pointer pointer(place);
    if (!then.contains(pointer) && now.contains(pointer)) {
      now.at(pointer.parent_pointer()).erase(pointer.back());
    }
  }
  return then == now;
}

struct Beginning {
  coordinator::Recipe recipe;
  int world_size = 0;
};

// Digests keep out accidents, not intent: numbers that would only keep the machine busy are
// refused.
constexpr std::int64_t kMostSamples = std::int64_t{1} << 31;
constexpr int kMostRanks = 1 << 20;

// Out of the first decision, which every run begins with.
Beginning beginning_of(const coordinator::Decision& plan) {
  Beginning beginning;
  try {
    const coordinator::Json inputs = coordinator::Json::parse(plan.inputs);
    beginning.recipe = coordinator::recipe_from_json(inputs.at("recipe"));
    beginning.world_size = inputs.at("world_size").get<int>();
  } catch (const coordinator::Json::exception& error) {
    throw_bad_input(std::string("the first decision is no plan: ") + error.what());
  }
  const auto& recipe = beginning.recipe;
  for (const std::int64_t count : {recipe.samples_per_epoch, recipe.global_batch,
                                   recipe.reference_batch, recipe.leaf_size, recipe.batch_max}) {
    if (count > kMostSamples) {
      throw_bad_input(fmt::format("the plan speaks of {} samples at once", count));
    }
  }
  if (recipe.budget_samples > coordinator::kNoSampleLimit || beginning.world_size > kMostRanks) {
    throw_bad_input(fmt::format("the plan speaks of {} samples on {} ranks", recipe.budget_samples,
                                beginning.world_size));
  }
  return beginning;
}

coordinator::ReplayResult replayed(const Beginning& beginning,
                                   std::span<const coordinator::RecordedEvent> events) {
  try {
    return coordinator::replay(beginning.recipe, beginning.world_size, events);
  } catch (const Error& error) {
    throw_bad_input(std::string("the record cannot be replayed: ") + error.what());
  }
}

// How many decisions the events lead to beyond those of the file.
std::size_t compare(const fs::path& file, const std::vector<coordinator::Decision>& written,
                    const std::vector<coordinator::Decision>& again) {
  for (std::size_t i = 0; i < written.size(); ++i) {
    if (i >= again.size()) {
      throw_bad_input(fmt::format("{}, line {}: the events lead to {} decisions only",
                                  file.string(), i + 1, again.size()));
    }
    if (coordinator::to_json_line(written[i]) != coordinator::to_json_line(again[i])) {
      throw_bad_input(fmt::format("{}, line {} is not what the events lead to: '{}: {}'",
                                  file.string(), i + 1, again[i].kind, printable(again[i].reason)));
    }
  }
  return again.size() - written.size();
}

}  // namespace

void replay_run(const fs::path& run_folder) {
  const fs::path file = run_folder / "decisions.jsonl";
  const auto decisions = read_decisions(file);
  const auto events = read_events(run_folder / "events.jsonl");
  const Beginning beginning = beginning_of(decisions.front());
  const auto saved = newest_saved_coordinator(run_folder);
  if (saved) {
    require_all_decisions(file, decisions, *saved);
  }
  const auto all = replayed(beginning, events);
  const std::size_t unwritten = compare(file, decisions, all.decisions);
  std::cout << fmt::format("{} events lead to {} decisions, byte for byte those of {}\n",
                           events.size(), decisions.size(), file.string());
  if (unwritten > 0) {
    std::cout << fmt::format("and to {} more: the run was interrupted before they were written\n",
                             unwritten);
  }
  if (!saved || saved->events == 0) {
    std::cout << fmt::format("state hash {}; there is no checkpoint to compare it with\n",
                             coordinator::hex64(all.state_hash));
    return;
  }
  const auto count = static_cast<std::size_t>(saved->events);
  if (count > events.size()) {
    throw_bad_input(fmt::format(
        "{} ends after line {}, and {} has seen {} events: the end was cut "
        "off",
        (run_folder / "events.jsonl").string(), events.size(), saved->checkpoint, saved->events));
  }
  const auto then = replayed(beginning, std::span(events).first(count));
  if (!is_state_of(saved->state, then.state)) {
    throw_bad_input(fmt::format("{} events do not lead to the coordinator's state in {}", count,
                                saved->checkpoint));
  }
  std::cout << fmt::format("the first {} of them lead to the state in {}, hash {}\n", count,
                           saved->checkpoint, coordinator::hex64(then.state_hash));
}

}  // namespace lorascale::cli
