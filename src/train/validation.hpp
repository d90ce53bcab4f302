// When a run is validated, and what follows: the coordinator is told, the best result is written.
#pragma once

#include <optional>

#include "train/checkpointer.hpp"
#include "train/evaluator.hpp"
#include "train/results.hpp"

namespace lorascale::train {

class Validation {
 public:
  Validation(Run& run, Checkpointer& checkpoints, Results& results);

  [[nodiscard]] bool due(const coordinator::Progress& before,
                         const coordinator::Progress& after) const {
    return cadence_.due(before, after);
  }
  // Nothing where the run does not validate. Collective.
  std::optional<Evaluation> run();
  // Evaluation begins in leaves of so many samples.
  void begin_with(std::int64_t leaf_size) { leaf_size_ = leaf_size; }

 private:
  Run& run_;
  Checkpointer& checkpoints_;
  Results& results_;
  coordinator::Cadence cadence_;
  std::int64_t leaf_size_;
};

}  // namespace lorascale::train
