// A batch policy says which global batch it would like for the next update, and why. It may be
// wrong or greedy: the guard (batch_guard.hpp) decides what it gets, and batch_controller.hpp
// carries it out. A policy sees facts that all ranks share and nothing else, so all ranks agree.
// A new policy is one file in policies/, its maker in policies/policies.hpp and its row in
// batch_policy.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/facts.hpp"
#include "coordinator/memory/leaf_sizer.hpp"
#include "coordinator/recipe.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

// The critical batch: where gradient noise and gradient weigh the same (McCandlish et al. 2018).
// Given by the recipe, or the combined reading of the noise monitor.
struct CriticalBatch {
  double samples = 0;
  double relative_sd = 0;
  bool known = false;

  // I10: false as well where the error is too large; such a reading decides nothing.
  [[nodiscard]] bool usable() const;
};

// Batches that the next decision may choose from: least <= B <= most, in multiples of the
// increment.
struct BatchReach {
  std::int64_t least = 0;
  std::int64_t most = 0;
};

// How the machines share an update. Goodput alone may let it decide anything.
struct BatchLayout {
  int world_size = 1;
  LeafSizer leaves;
};

struct BatchContext {
  const Recipe& recipe;
  std::int64_t samples = 0;  // seen so far
  std::int64_t batch = 0;    // B in force
  BatchReach reach{};
  BatchLayout layout;
  CriticalBatch critical{};
};

struct BatchWish {
  std::int64_t batch = 0;
  std::string reason;  // half a sentence with the numbers behind it
  Json inputs;         // object
};

class BatchPolicy {
 public:
  virtual ~BatchPolicy() = default;

  // Every update, in order, before wish().
  virtual void observe(const StepPlan& /*plan*/, const StepFacts& /*facts*/, int /*world_size*/) {}
  // Asked after an update, where the guard would allow a change. Nothing: stay.
  virtual std::optional<BatchWish> wish(const BatchContext& context) = 0;

  // For the plan: what the batch will do. Of a sound recipe.
  [[nodiscard]] virtual std::string describe(const Recipe& recipe) const = 0;
  // What in the recipe does not go with this policy, one line each, with the remedy.
  [[nodiscard]] virtual std::vector<std::string> contradictions(const Recipe& /*recipe*/) const {
    return {};
  }

  [[nodiscard]] virtual Json save() const { return nullptr; }
  // Throws Json::exception where a value is missing, Error(kBadInput) where one is impossible.
  virtual void load(const Json& /*state*/) {}
};

// One line where `reader` needs the critical batch and it is neither given nor measured.
std::optional<std::string> lacks_critical_batch(const Recipe& recipe, const std::string& reader);

std::unique_ptr<BatchPolicy> make_batch_policy(BatchPolicyKind kind);

}  // namespace lorascale::coordinator
