// While it lives, the model computes with the average of its weights, where the run keeps one that
// has begun; then with the trained ones again, bit for bit. Between updates only, on all ranks
// alike: the gradient's memory serves as scratch, and neither update nor checkpoint may fall
// inside.
#pragma once

#include "adapters/parameters.hpp"
#include "optim/weight_average.hpp"

namespace lorascale::train {

class AveragedWeights {
 public:
  // `average` may be null.
  AveragedWeights(optim::WeightAverage* average, const adapters::TrainableParameters& parameters);
  ~AveragedWeights();
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

  // Whether they differ from the trained ones at all.
  [[nodiscard]] bool in_place() const { return average_ != nullptr; }

 private:
  void exchange();

  optim::WeightAverage* average_;  // null: nothing to do
  const adapters::TrainableParameters& parameters_;
};

}  // namespace lorascale::train
