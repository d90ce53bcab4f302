// How large the change is that the adapter makes: |dW| / |W|, with dW = s B A of all adapted layers
// as one vector and W the frozen weights under them. Some small products per layer; |W| is computed
// once. Waits for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "train/session.hpp"

namespace lorascale::train {

class MovementMeter {
 public:
  explicit MovementMeter(const Trainable& trainable);

  // Nothing where all weights are trained, for their start is not kept, and where memory is short.
  std::optional<double> ratio();

 private:
  struct Factors {
    at::Tensor a, b;  // views of the master: [rank, in], [out, rank]
    double scale = 0;
  };
  const Trainable& trainable_;
  std::vector<Factors> factors_;
  std::optional<double> weight_square_;
};

}  // namespace lorascale::train
