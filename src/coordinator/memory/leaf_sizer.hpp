// The leaf (micro-batch) that fits into memory. When memory runs out, on whichever rank, all ranks
// go on with the next smaller divisor of the global batch that is at most half as large; B, rates
// and samples stay. In leaves of one sample an update has one more try, with cached memory freed.
// After kPatience clean updates the next larger one is tried again; each attempt that fails doubles
// the patience, so that a size that does not fit costs less and less.
//
// Depends on the machines, like world size and time: part of the layout, not of the state hash.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "coordinator/facts.hpp"
#include "coordinator/recipe.hpp"
#include "coordinator/record/decision_log.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

class LeafSizer {
 public:
  static constexpr std::int64_t kPatience = 100;  // clean updates

  // `wanted`: the leaf that the recipe asks for.
  explicit LeafSizer(std::int64_t wanted) : wanted_(wanted), limit_(wanted) {}

  // The leaf of updates of a global batch B: the largest divisor of B within the limit.
  [[nodiscard]] std::int64_t leaf_size(std::int64_t batch) const;

  // False where an update has run out of memory in leaves of one sample before.
  bool on_out_of_memory(const MemoryFacts& facts, std::int64_t batch, std::int64_t samples,
                        DecisionLog& log);
  void on_clean_update(std::int64_t step, std::int64_t batch, std::int64_t samples,
                       DecisionLog& log);

  [[nodiscard]] Json save() const;
  // A state of another wanted leaf (changed on resume) is not taken over.
  void load(const Json& state);

 private:
  std::int64_t wanted_;
  std::int64_t limit_;
  std::int64_t clean_ = 0;  // updates since the leaf changed or memory ran out
  std::int64_t patience_ = kPatience;
  bool grown_ = false;  // the present leaf is an attempt to grow
  // The update that is tried again in leaves of one sample. Not saved: a run that ends in it may
  // try it twice again when it goes on.
  std::int64_t last_try_ = 0;
};

// "2 ranks (the first is rank 1)".
std::string who_ran_out(std::int64_t ranks, std::int64_t first);

}  // namespace lorascale::coordinator
