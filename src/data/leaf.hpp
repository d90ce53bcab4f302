// The leaf: a micro-batch, the unit of work, of randomness and of summation. What its samples are
// made of is the data set's and the model's affair: TokenLeaf, ImageLeaf, ... derive from it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/sample_key.hpp"

namespace lorascale::data {

struct Leaf {
  SampleKey key;                         // what all randomness of its samples follows from
  std::vector<std::int64_t> sample_ids;  // [samples] row of the data set that each sample is
  std::int64_t units = 0;                // what throughput counts: tokens, images

  Leaf() = default;
  Leaf(const Leaf&) = default;
  Leaf(Leaf&&) = default;
  Leaf& operator=(const Leaf&) = default;
  Leaf& operator=(Leaf&&) = default;
  virtual ~Leaf() = default;

  // Nothing in it is to be predicted any more: what a drill of faults makes of it.
  virtual void drop_targets() = 0;
};

}  // namespace lorascale::data
