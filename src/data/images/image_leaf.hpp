// A leaf of pictures with one class each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "data/leaf.hpp"

namespace lorascale::data {

struct ImageLeaf : Leaf {
  std::int64_t channels = 0, height = 0, width = 0;
  std::vector<float> pixels;         // [samples, channels, height, width], normalised
  std::vector<std::int32_t> labels;  // [samples] class, or -1: not a target

  void drop_targets() override { std::ranges::fill(labels, -1); }
};

}  // namespace lorascale::data
