// Dropout whose mask belongs to the sample: a pure function of (seed, epoch, sample id, layer,
// position in the row), so that it is the same for any micro-batch, rank or replay.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "nn/sample_rows.hpp"

namespace lorascale::nn {

// [rows, width] of like's type and device: 0 with probability p, else 1 / (1 - p).
at::Tensor dropout_scale(const SampleRows& rows, std::uint32_t draw, double p, std::int64_t width,
                         const at::TensorOptions& options);

// [rows, rank], by which what comes out of LoRA's A is multiplied: for each sample, 0 for a share
// `rank_p` of the rank, else 1 / (1 - rank_p); and 0 altogether with probability `module_p`, which
// changes nothing otherwise (as in sd-scripts, where what is left is not made larger for it).
at::Tensor rank_dropout_scale(const SampleRows& rows, std::uint32_t draw, double rank_p,
                              double module_p, std::int64_t rank, const at::TensorOptions& options);

}  // namespace lorascale::nn
