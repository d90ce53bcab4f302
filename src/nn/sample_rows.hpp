// Which rows of an activation belong to which sample, and what the samples' randomness follows
// from: for layers that draw.
#pragma once

#include <cstdint>
#include <vector>

#include "base/sample_key.hpp"

namespace lorascale::nn {

struct SampleRows {
  SampleKey key;
  std::vector<std::int64_t> sample_ids;  // [samples]
  std::vector<std::int32_t> offsets;  // [samples + 1] first row of each; the last is their number
};

}  // namespace lorascale::nn
