// Record and replay: the facts of a run in order are enough to take every decision again. A
// recorded event carries a digest of itself, of all before it and of the recipe, so that a changed,
// missing or reordered one is found before it is believed.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/coordinator.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// The run was stopped and goes on after `step`, perhaps on other machines or with more to do.
struct ResumeFacts {
  std::int64_t step = 0;
  int world_size = 0;
  std::int64_t leaf_size = 0;
  std::int64_t budget_samples = 0;
  double budget_minutes = 0;
  bool advise = false;
  bool batch_follows_ranks = false;
  std::int64_t max_recoveries = 0;
  std::int64_t recovery_warmup_samples = 0;
  // What lies ahead (continuation.hpp). Absent: as the run began, in a record of before they were.
  std::optional<std::int64_t> decay_samples{};
  std::optional<std::int64_t> swa_start_samples{};
  std::vector<Leg> legs{};
  std::int64_t first_leg_end = 0;
};

// Of a coordinator that has just been restored. Whatever a resume may change (Coordinator::restore)
// belongs here, or the run cannot be replayed.
ResumeFacts resume_facts(const Coordinator& coordinator);

// The run had diverged and went back to the checkpoint after `step`, which held `state`.
struct RecoveryFacts {
  std::int64_t step = 0;
  std::string state;
};

using Event = std::variant<StepFacts, EvaluationFacts, ResumeFacts, MemoryFacts, AsideMemoryFacts,
                           LeafFacts, MovementFacts, PreviewFacts, RecoveryFacts>;

struct RecordedEvent {
  Event event;
  std::uint64_t chain = 0;
};

class Recorder {
 public:
  explicit Recorder(const Recipe& recipe);
  // Goes on after an event with digest `chain`.
  explicit Recorder(std::uint64_t chain) : chain_(chain) {}

  RecordedEvent record(const Event& event);
  [[nodiscard]] std::uint64_t chain() const { return chain_; }

 private:
  std::uint64_t chain_ = 0;
};

// One line of JSON, without the line feed; the inverse throws Error(kBadInput). Doubles keep their
// bits.
std::string to_json_line(const RecordedEvent& recorded);
RecordedEvent event_from_json_line(const std::string& line);

struct ReplayResult {
  std::uint64_t state_hash = 0;
  std::string state;
  std::vector<Decision> decisions;  // all, in order
};

// `recipe` and `world_size` are those that the run began with. Throws Error(kBadInput) that names
// the first event whose digest does not follow or that cannot have happened there. Events cut off
// at the end do not show in the chain: compare the state hash for that.
ReplayResult replay(const Recipe& recipe, int world_size, std::span<const RecordedEvent> events);

}  // namespace lorascale::coordinator
