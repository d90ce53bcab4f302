// A leaf of captioned pictures, for models that learn to make them. Pictures of one size stand
// together; a leaf may hold several sizes.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/leaf.hpp"

namespace lorascale::data {

// Samples of one size.
struct PictureGroup {
  std::int64_t height = 0, width = 0;
  std::vector<std::int64_t> samples;  // numbers within the leaf
  std::vector<float> pixels;          // [samples, 3, height, width] in [-1, 1]
  std::vector<float> mask;  // [samples, height, width] in [0, 1]; empty: everything counts
};

struct PictureLeaf : Leaf {
  std::vector<PictureGroup> groups;
  // Token ids of the captions, [samples, encoders, text_rows, positions]: rows of beginning, words,
  // end and padding, as each text encoder wants it.
  std::int64_t encoders = 1, text_rows = 1, positions = 77;
  std::vector<std::int32_t> ids;
  // How much each counts, beside the loss's own weights; 0 where it is no target.
  std::vector<float> weights;  // [samples]
  // Tells views of pictures apart: the same pixels have the same name. Empty: they are not seen
  // again. [samples]
  std::vector<std::string> views;
  // Height and width of the original, top and left of the crop, height and width of what is seen:
  // what SDXL is told. [samples]
  std::vector<std::array<std::int32_t, 6>> sizes;
  bool targets = true;

  void drop_targets() override { targets = false; }
};

}  // namespace lorascale::data
