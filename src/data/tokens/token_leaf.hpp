// A leaf of tokens, without padding: the valid tokens of all its rows stand back to back, and
// segments say which of them see each other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "data/leaf.hpp"

namespace lorascale::data {

// One document piece: tokens [begin, end) of the leaf attend to each other, causally, and to
// nothing else.
struct Segment {
  std::int32_t begin = 0;
  std::int32_t end = 0;
};

struct TokenLeaf : Leaf {
  std::vector<std::int32_t>
      row_offsets;  // [rows + 1] first token of each row; the last is tokens.size()
  std::vector<std::int32_t> tokens;     // [tokens]
  std::vector<std::int32_t> positions;  // [tokens] restart at 0 in each segment
  std::vector<std::int32_t> labels;     // [tokens] the next token where it is a target, else -1
  std::vector<Segment> segments;        // in order; together they cover every token
  std::int64_t targets = 0;             // labels that are not -1

  void drop_targets() override {
    std::ranges::fill(labels, -1);
    targets = 0;
  }
};

}  // namespace lorascale::data
