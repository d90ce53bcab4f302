// How much memory tensors took at most on this rank: between two looks, and over the whole run.
#pragma once

#include <algorithm>

#include "train/tensor_memory.hpp"
#include "train/world.hpp"

namespace lorascale::train {

class PeakMemory {
 public:
  explicit PeakMemory(at::Device place) : place_(place) {}

  // Bytes at the peak since the last look.
  double look() {
    const auto peak = static_cast<double>(tensor_memory(place_).peak);
    most_ = std::max(most_, peak);
    reset_peak_memory(place_);
    return peak;
  }
  // Collective: rank 0 logs the peak of the rank where it was highest, over all looks.
  void report(World& world);

 private:
  at::Device place_;
  double most_ = 0;
};

}  // namespace lorascale::train
