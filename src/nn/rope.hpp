// Rotary position embedding (Su et al. 2021) in the half-split layout of Hugging Face checkpoints.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

namespace lorascale::nn {

enum class RopeType { kDefault, kLinear, kLlama3, kYarn };

struct RopeParameters {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  std::int64_t dim = 0;  // rotated width of a head; all of it
  double factor = 1.0;
  double original_context = 0.0;                 // original_max_position_embeddings
  double low_freq_factor = 1.0;                  // llama3
  double high_freq_factor = 4.0;                 // llama3
  double beta_fast = 32.0;                       // yarn
  double beta_slow = 1.0;                        // yarn
  bool truncate = true;                          // yarn
  std::optional<double> attention_factor;        // yarn
  std::optional<double> mscale, mscale_all_dim;  // yarn
};

// Inverse frequencies [dim / 2] in fp32, and the factor that multiplies cos and sin.
struct RopeFrequencies {
  at::Tensor inverse;  // CPU, fp32
  float attention_factor = 1.0F;
};
RopeFrequencies rope_frequencies(const RopeParameters& parameters);

// Tables of cos and sin for the given positions: [tokens, dim / 2] fp32 on `device`.
struct RopeTables {
  at::Tensor cos;
  at::Tensor sin;
};
RopeTables rope_tables(const RopeFrequencies& frequencies, std::span<const std::int32_t> positions,
                       at::Device device);

// Rotates the first `heads` heads of x [tokens, >= heads * dim] in place; inverse undoes it (the
// backward).
void apply_rope(at::Tensor& x, std::int64_t heads, const RopeTables& tables, bool inverse);

}  // namespace lorascale::nn
