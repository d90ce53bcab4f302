// Dropout whose mask belongs to the sample: a pure function of (seed, epoch, sample id, module,
// position in the row), so that it is the same for any micro-batch, rank or replay.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lorascale::nn {

struct DropoutKey {
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;
  std::vector<std::int64_t> sample_ids;   // [rows]
  std::vector<std::int32_t> row_offsets;  // [rows + 1] tokens
};

// [tokens, width] of like's type and device: 0 with probability p, else 1 / (1 - p).
at::Tensor dropout_scale(const DropoutKey& key, std::uint32_t module, double p, std::int64_t width,
                         const at::TensorOptions& options);

}  // namespace lorascale::nn
