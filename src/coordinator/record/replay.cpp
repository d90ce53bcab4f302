#include "coordinator/record/replay.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "coordinator/mode_names.hpp"
#include "coordinator/record/json_number.hpp"
#include "coordinator/record/recipe_json.hpp"

namespace lorascale::coordinator {
namespace {

Json to_json(const SquareNorms& squares) {
  return Json::array({json_number(squares.weighted_leaf_square), json_number(squares.mean_square)});
}

SquareNorms squares_from(const Json& json) {
  return {number_from_json(json.at(0)), number_from_json(json.at(1))};
}

Json to_json(const GroupNorms& norms) {
  Json json = {{"group", norms.group},
               {"leaves", norms.leaves},
               {"weight", json_number(norms.weight)},
               {"raw", to_json(norms.raw)}};
  if (norms.preconditioned) {
    json["preconditioned"] = to_json(*norms.preconditioned);
  }
  return json;
}

GroupNorms group_norms_from(const Json& json) {
  GroupNorms norms;
  norms.group = json.at("group").get<std::string>();
  norms.leaves = json.at("leaves").get<std::int64_t>();
  norms.weight = number_from_json(json.at("weight"));
  norms.raw = squares_from(json.at("raw"));
  if (const auto found = json.find("preconditioned"); found != json.end()) {
    norms.preconditioned = squares_from(*found);
  }
  return norms;
}

Json to_json(const StepFacts& facts) {
  Json json = {{"event", "step"},
               {"step", facts.step},
               {"loss", json_number(facts.loss)},
               {"grad_norm", json_number(facts.grad_norm)},
               {"applied", facts.applied},
               {"elapsed_minutes", json_number(facts.elapsed_minutes)}};
  // Where something was not measured the line is that of a version that could not measure it.
  if (facts.step_seconds != 0) {
    json["step_seconds"] = json_number(facts.step_seconds);
  }
  if (facts.leaf_seconds != 0) {
    json["leaf_seconds"] = json_number(facts.leaf_seconds);
  }
  if (facts.loss_error != 0) {
    json["loss_error"] = json_number(facts.loss_error);
  }
  if (facts.without_targets) {
    json["without_targets"] = true;
  }
  for (const GroupNorms& norms : facts.noise) {
    json["noise"].push_back(to_json(norms));
  }
  return json;
}

Json to_json(const EvaluationFacts& facts) {
  return {{"event", "evaluation"}, {"step", facts.step}, {"loss", json_number(facts.loss)}};
}

Json to_json(const ResumeFacts& facts) {
  Json json = {{"event", "resume"},
               {"step", facts.step},
               {"world_size", facts.world_size},
               {"leaf_size", facts.leaf_size},
               {"budget_samples", facts.budget_samples},
               {"budget_minutes", facts.budget_minutes},
               {"advice", facts.advise}};
  if (facts.batch_follows_ranks) {
    json["batch_follows_ranks"] = true;
  }
  if (facts.max_recoveries != 0) {
    json["max_recoveries"] = facts.max_recoveries;
    json["recovery_warmup_samples"] = facts.recovery_warmup_samples;
  }
  if (facts.decay_samples) {
    json["decay_samples"] = *facts.decay_samples;
  }
  if (facts.swa_start_samples) {
    json["swa_start_samples"] = *facts.swa_start_samples;
  }
  if (!facts.legs.empty()) {
    json["first_leg_end"] = facts.first_leg_end;
    for (const Leg& leg : facts.legs) {
      json["legs"].push_back(leg_to_json(leg));
    }
  }
  return json;
}

Json to_json(const MovementFacts& facts) {
  return {{"event", "movement"}, {"step", facts.step}, {"ratio", json_number(facts.ratio)}};
}

Json to_json(const PreviewFacts& facts) {
  Json measures = Json::array();
  for (const Measure& measure : facts.measures) {
    measures.push_back({{"name", measure.name}, {"value", json_number(measure.value)}});
    if (!measure.of.empty()) {
      measures.back()["of"] = measure.of;
    }
  }
  return {{"event", "preview"}, {"step", facts.step}, {"measures", measures}};
}

PreviewFacts preview_facts_from(const Json& json, std::int64_t step) {
  PreviewFacts facts{step};
  for (const Json& measure : json.at("measures")) {
    facts.measures.push_back({measure.at("name").get<std::string>(),
                              number_from_json(measure.at("value")),
                              measure.value("of", std::string())});
  }
  return facts;
}

Json to_json(const MemoryFacts& facts) {
  return {{"event", "memory"}, {"step", facts.step}, {"ranks", facts.ranks}, {"rank", facts.rank}};
}

Json to_json(const AsideMemoryFacts& facts) {
  return {{"event", "aside_memory"}, {"step", facts.step}, {"task", name_of(facts.task)},
          {"ranks", facts.ranks},    {"rank", facts.rank}, {"leaf_size", facts.leaf_size}};
}

AsideMemoryFacts aside_memory_facts_from(const Json& json, std::int64_t step) {
  const auto name = json.at("task").get<std::string>();
  const auto task = mode_named<AsideMemoryFacts::Task>(name);
  if (!task) {
    throw_bad_input(fmt::format("an event of running out of memory in '{}' is not known", name));
  }
  return {step, *task, json.at("ranks").get<std::int64_t>(), json.at("rank").get<std::int64_t>(),
          json.at("leaf_size").get<std::int64_t>()};
}

Json to_json(const LeafFacts& facts) {
  Json json = {{"event", "leaf"},
               {"step", facts.step},
               {"leaf_size", facts.leaf_size},
               {"considered", facts.considered},
               {"rank", facts.rank},
               {"budget", json_number(facts.budget)},
               {"peak", json_number(facts.peak)},
               {"fixed", json_number(facts.fixed)},
               {"per_sample", json_number(facts.per_sample)},
               {"model", json_number(facts.model)}};
  for (const LeafSpeed& speed : facts.speeds) {
    json["speeds"].push_back(
        {speed.leaf_size, json_number(speed.samples_per_second), json_number(speed.noise)});
  }
  return json;
}

LeafFacts leaf_facts_from(const Json& json, std::int64_t step) {
  const auto bytes = [&](const char* key) { return number_from_json(json.at(key)); };
  LeafFacts facts{step,
                  json.at("leaf_size").get<std::int64_t>(),
                  json.at("considered").get<std::int64_t>(),
                  json.at("rank").get<std::int64_t>(),
                  bytes("budget"),
                  bytes("peak"),
                  bytes("fixed"),
                  bytes("per_sample"),
                  bytes("model")};
  for (const Json& speed : json.value("speeds", Json::array())) {
    facts.speeds.push_back({speed.at(0).get<std::int64_t>(), number_from_json(speed.at(1)),
                            number_from_json(speed.at(2))});
  }
  return facts;
}

Json to_json(const RecoveryFacts& facts) {
  return {{"event", "recovery"}, {"step", facts.step}, {"state", facts.state}};
}

Json to_json(const Event& event) {
  return std::visit([](const auto& facts) { return to_json(facts); }, event);
}

Event event_from(const Json& json) {
  const auto kind = json.at("event").get<std::string>();
  const auto step = json.at("step").get<std::int64_t>();
  if (kind == "step") {
    StepFacts facts;
    facts.step = step;
    facts.loss = number_from_json(json.at("loss"));
    facts.grad_norm = number_from_json(json.at("grad_norm"));
    facts.applied = json.at("applied").get<bool>();
    facts.elapsed_minutes = number_from_json(json.at("elapsed_minutes"));
    facts.step_seconds = json.contains("step_seconds") ? number_from_json(json["step_seconds"]) : 0;
    facts.leaf_seconds = json.contains("leaf_seconds") ? number_from_json(json["leaf_seconds"]) : 0;
    facts.loss_error = json.contains("loss_error") ? number_from_json(json["loss_error"]) : 0;
    facts.without_targets = json.value("without_targets", false);
    if (const auto found = json.find("noise"); found != json.end()) {
      for (const Json& norms : *found) {
        facts.noise.push_back(group_norms_from(norms));
      }
    }
    return facts;
  }
  if (kind == "evaluation") {
    return EvaluationFacts{step, number_from_json(json.at("loss"))};
  }
  if (kind == "resume") {
    ResumeFacts facts{step,
                      json.at("world_size").get<int>(),
                      json.at("leaf_size").get<std::int64_t>(),
                      json.at("budget_samples").get<std::int64_t>(),
                      json.at("budget_minutes").get<double>(),
                      json.at("advice").get<bool>(),
                      json.value("batch_follows_ranks", false)};
    if (json.contains("max_recoveries")) {
      facts.max_recoveries = json.at("max_recoveries").get<std::int64_t>();
      facts.recovery_warmup_samples = json.at("recovery_warmup_samples").get<std::int64_t>();
    }
    if (json.contains("decay_samples")) {
      facts.decay_samples = json.at("decay_samples").get<std::int64_t>();
    }
    if (json.contains("swa_start_samples")) {
      facts.swa_start_samples = json.at("swa_start_samples").get<std::int64_t>();
    }
    if (json.contains("legs")) {
      facts.first_leg_end = json.at("first_leg_end").get<std::int64_t>();
      for (const Json& leg : json.at("legs")) {
        facts.legs.push_back(leg_from_json(leg));
      }
    }
    return facts;
  }
  if (kind == "memory") {
    return MemoryFacts{step, json.at("ranks").get<std::int64_t>(),
                       json.at("rank").get<std::int64_t>()};
  }
  if (kind == "aside_memory") {
    return aside_memory_facts_from(json, step);
  }
  if (kind == "leaf") {
    return leaf_facts_from(json, step);
  }
  if (kind == "movement") {
    return MovementFacts{step, number_from_json(json.at("ratio"))};
  }
  if (kind == "preview") {
    return preview_facts_from(json, step);
  }
  if (kind == "recovery") {
    return RecoveryFacts{step, json.at("state").get<std::string>()};
  }
  throw_bad_input(fmt::format("an event of kind '{}' is not known to this version", kind));
}

std::uint64_t link(const Event& event, std::uint64_t before) {
  return fnv1a64(to_json(event).dump(), before);
}

// Applies events to a coordinator; each returns why the event cannot have happened, or "".
struct Player {
  Coordinator coordinator;
  std::vector<Decision> decisions{};
  // What a recovery may go back to: the states after each step, of which there are several where a
  // resume changed the batch.
  struct Known {
    std::shared_ptr<const Recipe> recipe;  // since the last start
    std::uint64_t state_hash = 0;
    friend bool operator==(const Known&, const Known&) = default;
  };
  std::shared_ptr<const Recipe> recipe{std::make_shared<Recipe>(coordinator.recipe())};
  std::map<std::int64_t, std::vector<Known>> known{};

  void remember() {
    auto& states = known[coordinator.steps_done()];
    const Known now{recipe, coordinator.state_hash()};
    if (std::ranges::find(states, now) == states.end()) {
      states.push_back(now);
    }
  }

  [[nodiscard]] bool was_in(const Known& then, const std::string& state) const {
    Recipe saved_under = *then.recipe;
    saved_under.batch_follows_ranks = false;  // as it was saved, whoever reads it
    return Coordinator::restore(saved_under, coordinator.world_size(), state).state_hash() ==
           then.state_hash;
  }

  void collect() {
    auto taken = coordinator.take_decisions();
    decisions.insert(decisions.end(), std::make_move_iterator(taken.begin()),
                     std::make_move_iterator(taken.end()));
  }

  std::string operator()(const StepFacts& facts) {
    const auto plan = coordinator.next_step();
    if (!plan) {
      return fmt::format("reports step {} of a run that is over", facts.step);
    }
    if (plan->step != facts.step) {
      return fmt::format("reports step {} where step {} was due", facts.step, plan->step);
    }
    coordinator.on_step(facts);
    return {};
  }

  std::string operator()(const EvaluationFacts& facts) {
    if (facts.step != coordinator.steps_done()) {
      return fmt::format("evaluates step {} after step {}", facts.step, coordinator.steps_done());
    }
    coordinator.on_evaluation(facts);
    return {};
  }

  std::string operator()(const MovementFacts& facts) {
    if (facts.step != coordinator.steps_done()) {
      return fmt::format("measures movement at step {} after step {}", facts.step,
                         coordinator.steps_done());
    }
    coordinator.on_movement(facts);
    return {};
  }

  std::string operator()(const PreviewFacts& facts) {
    if (facts.step != coordinator.steps_done()) {
      return fmt::format("previews step {} after step {}", facts.step, coordinator.steps_done());
    }
    coordinator.on_preview(facts);
    return {};
  }

  std::string operator()(const MemoryFacts& facts) {
    const auto plan = coordinator.next_step();
    if (!plan || plan->step != facts.step) {
      return fmt::format("has update {} run out of memory, which was not due", facts.step);
    }
    return coordinator.on_out_of_memory(facts)
               ? std::string()
               : "tries an update in leaves of one sample a third time";
  }

  std::string operator()(const AsideMemoryFacts& facts) {
    if (facts.step != coordinator.steps_done()) {
      return fmt::format("runs out of memory beside step {} after step {}", facts.step,
                         coordinator.steps_done());
    }
    coordinator.on_aside_out_of_memory(facts);
    return {};
  }

  std::string operator()(const LeafFacts& facts) {
    if (facts.step != coordinator.steps_done() ||
        facts.leaf_size != coordinator.recipe().leaf_size) {
      return fmt::format("measures leaf {} after step {} of a run with leaf {} after step {}",
                         facts.leaf_size, facts.step, coordinator.recipe().leaf_size,
                         coordinator.steps_done());
    }
    coordinator.on_leaf_measured(facts);
    return {};
  }

  std::string operator()(const RecoveryFacts& facts) {
    const std::string target = "goes back to step " + std::to_string(facts.step);
    if (!coordinator.recovery_due()) {
      return target + " of a run that had no cause to";
    }
    const auto there = known.find(facts.step);
    if (there == known.end()) {
      return target + ", where the run was not";
    }
    if (std::ranges::none_of(there->second,
                             [&](const Known& then) { return was_in(then, facts.state); })) {
      return target + " with a state that the run did not have there";
    }
    coordinator.recover(facts.state);
    known.erase(std::next(there), known.end());
    return {};
  }

  std::string operator()(const ResumeFacts& facts) {
    if (facts.step != coordinator.steps_done()) {
      return fmt::format("resumes after step {} instead of {}", facts.step,
                         coordinator.steps_done());
    }
    Recipe again = coordinator.recipe();
    again.leaf_size = facts.leaf_size;
    again.budget_samples = facts.budget_samples;
    again.budget_minutes = facts.budget_minutes;
    again.batch_follows_ranks = facts.batch_follows_ranks;
    again.advise = facts.advise;
    again.max_recoveries = facts.max_recoveries;
    again.recovery_warmup_samples = facts.recovery_warmup_samples;
    again.decay_samples = facts.decay_samples.value_or(again.decay_samples);
    again.swa_start_samples = facts.swa_start_samples.value_or(again.swa_start_samples);
    again.legs = facts.legs;
    again.first_leg_end = facts.first_leg_end;
    collect();
    coordinator = Coordinator::restore(again, facts.world_size, coordinator.state());
    recipe = std::make_shared<Recipe>(coordinator.recipe());
    return {};
  }
};

[[noreturn]] void refuse(std::size_t index, const std::string& what) {
  throw_bad_input(
      fmt::format("event {} of the record {}; the record was changed or belongs to another run",
                  index + 1, what));
}

}  // namespace

ResumeFacts resume_facts(const Coordinator& coordinator) {
  const Recipe& recipe = coordinator.recipe();
  return {coordinator.steps_done(),   coordinator.world_size(), recipe.leaf_size,
          recipe.budget_samples,      recipe.budget_minutes,    recipe.advise,
          recipe.batch_follows_ranks, recipe.max_recoveries,    recipe.recovery_warmup_samples,
          recipe.decay_samples,       recipe.swa_start_samples, recipe.legs,
          recipe.first_leg_end};
}

Recorder::Recorder(const Recipe& recipe) : chain_(recipe_fingerprint(recipe)) {}

RecordedEvent Recorder::record(const Event& event) {
  chain_ = link(event, chain_);
  return {event, chain_};
}

std::string to_json_line(const RecordedEvent& recorded) {
  Json json = to_json(recorded.event);
  json["chain"] = hex64(recorded.chain);
  return json.dump();
}

RecordedEvent event_from_json_line(const std::string& line) {
  try {
    const Json json = Json::parse(line);
    return {event_from(json), hex64_from(json.at("chain").get<std::string>())};
  } catch (const Json::exception& error) {
    throw_bad_input(std::string("a line of the event record is damaged: ") + error.what());
  }
}

ReplayResult replay(const Recipe& recipe, int world_size, std::span<const RecordedEvent> events) {
  Player player{Coordinator(recipe, world_size)};
  player.remember();
  Recorder recorder(recipe);
  for (std::size_t i = 0; i < events.size(); ++i) {
    if (recorder.record(events[i].event).chain != events[i].chain) {
      refuse(i, "does not follow from the events before it");
    }
    const std::string fault = std::visit(player, events[i].event);
    if (!fault.empty()) {
      refuse(i, fault);
    }
    player.remember();
  }
  player.collect();
  return {player.coordinator.state_hash(), player.coordinator.state(), std::move(player.decisions)};
}

}  // namespace lorascale::coordinator
