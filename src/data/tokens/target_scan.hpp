// Counts targets by a data set's mask, block by block: what rows are planned by. Cheap in file
// order, where each block is read once. Not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "data/tokens/token_file.hpp"

namespace lorascale::data {

class TargetScan {
 public:
  // `dataset` has a mask and outlives the scan.
  explicit TargetScan(const TokenFile& dataset) : dataset_(dataset) {}

  // Of the tokens [begin, end) of the data set.
  std::int64_t count(std::int64_t begin, std::int64_t end);

 private:
  const TokenFile& dataset_;
  std::int64_t block_ = -1;  // that `mask_` is of
  std::vector<std::uint8_t> mask_;
};

}  // namespace lorascale::data
