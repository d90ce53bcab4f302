#include "nn/rope.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/error.hpp"
#include "nn/cpu_rows.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

// Wavelengths beyond the low cut are stretched by `factor`, those below the high cut kept, the rest
// blended (the rule published with Llama 3.1).
double llama3_frequency(double inverse, const RopeParameters& p) {
  const double wavelength = 2.0 * std::numbers::pi / inverse;
  if (wavelength > p.original_context / p.low_freq_factor) {
    return inverse / p.factor;
  }
  if (wavelength < p.original_context / p.high_freq_factor) {
    return inverse;
  }
  const double smooth = (p.original_context / wavelength - p.low_freq_factor) /
                        (p.high_freq_factor - p.low_freq_factor);
  return (1.0 - smooth) * inverse / p.factor + smooth * inverse;
}

// YaRN (Peng et al. 2023): the ramp between extrapolated and interpolated dimensions.
struct YarnRamp {
  double low = 0;
  double high = 0;
  explicit YarnRamp(const RopeParameters& p) {
    const auto dim = static_cast<double>(p.dim);
    const auto correction = [&](double rotations) {
      return dim * std::log(p.original_context / (rotations * 2.0 * std::numbers::pi)) /
             (2.0 * std::log(p.theta));
    };
    low = correction(p.beta_fast);
    high = correction(p.beta_slow);
    if (p.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, dim - 1.0);
    if (low == high) {
      high += 0.001;
    }
  }
  [[nodiscard]] double at(std::int64_t j) const {
    return std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
  }
};

double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_attention_factor(const RopeParameters& p) {
  if (p.attention_factor) {
    return *p.attention_factor;
  }
  if (p.mscale.value_or(0) != 0 && p.mscale_all_dim.value_or(0) != 0) {
    return yarn_mscale(p.factor, *p.mscale) / yarn_mscale(p.factor, *p.mscale_all_dim);
  }
  return yarn_mscale(p.factor, 1.0);
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeParameters& p) {
  LS_ASSERT(p.dim > 0 && p.dim % 2 == 0);
  RopeFrequencies result{at::empty({p.dim / 2}, at::kFloat)};
  float* inverse = result.inverse.data_ptr<float>();
  const std::optional<YarnRamp> ramp =
      p.type == RopeType::kYarn ? std::optional(YarnRamp(p)) : std::nullopt;
  for (std::int64_t j = 0; j < p.dim / 2; ++j) {
    // The exponent, the power and the division in fp32, as the reference computes them.
    const float exponent = static_cast<float>(2 * j) / static_cast<float>(p.dim);
    const float base = 1.0F / std::pow(static_cast<float>(p.theta), exponent);
    double value = base;
    switch (p.type) {
      case RopeType::kDefault:
        break;
      case RopeType::kLinear:
        value = base / p.factor;
        break;
      case RopeType::kLlama3:
        value = llama3_frequency(base, p);
        break;
      case RopeType::kYarn:
        value = base / p.factor * ramp->at(j) + base * (1.0 - ramp->at(j));
        break;
    }
    inverse[j] = static_cast<float>(value);
  }
  if (p.type == RopeType::kYarn) {
    result.attention_factor = static_cast<float>(yarn_attention_factor(p));
  }
  return result;
}

RopeTables rope_tables(const RopeFrequencies& frequencies, std::span<const std::int32_t> positions,
                       at::Device device) {
  const auto tokens = static_cast<std::int64_t>(positions.size());
  const auto half = frequencies.inverse.size(0);
  RopeTables tables{at::empty({tokens, half}, at::kFloat), at::empty({tokens, half}, at::kFloat)};
  const float* inverse = frequencies.inverse.const_data_ptr<float>();
  float* cos = tables.cos.data_ptr<float>();
  float* sin = tables.sin.data_ptr<float>();
  at::parallel_for(0, tokens, row_grain(half * 16), [&](std::int64_t begin, std::int64_t end) {
    for (auto token = begin; token < end; ++token) {
      const auto position = static_cast<float>(positions[static_cast<std::size_t>(token)]);
      for (std::int64_t j = 0; j < half; ++j) {
        const float angle = position * inverse[j];
        cos[token * half + j] = std::cos(angle) * frequencies.attention_factor;
        sin[token * half + j] = std::sin(angle) * frequencies.attention_factor;
      }
    }
  });
  return {tables.cos.to(device), tables.sin.to(device)};
}

void apply_rope(at::Tensor& x, std::int64_t heads, const RopeTables& tables, bool inverse) {
  const auto tokens = x.size(0);
  const auto half = tables.cos.size(1);
  const auto dim = 2 * half;
  const float sign = inverse ? -1.0F : 1.0F;
  // Angles in the type of x, as the reference has them.
  const at::Tensor cos_table = tables.cos.to(x.scalar_type());
  const at::Tensor sin_table = tables.sin.to(x.scalar_type());
  if (!has_cpu_kernels(x)) {
    at::Tensor rotated = x.narrow(1, 0, heads * dim).view({tokens, heads, 2, half});
    const at::Tensor cos = cos_table.unsqueeze(1);
    const at::Tensor sin = sin_table.unsqueeze(1) * sign;
    at::Tensor first = rotated.select(2, 0);
    at::Tensor second = rotated.select(2, 1);
    const at::Tensor new_first = first * cos - second * sin;
    second.copy_(second * cos + first * sin);
    first.copy_(new_first);
    return;
  }
  const auto stride = x.stride(0);
  const at::Tensor wide_cos = cos_table.to(at::kFloat);
  const at::Tensor wide_sin = sin_table.to(at::kFloat);
  const float* cos = wide_cos.const_data_ptr<float>();
  const float* sin = wide_sin.const_data_ptr<float>();
  with_element_type(x, [&]<class T>() {
    T* data = x.data_ptr<T>();
    at::parallel_for(0, tokens, row_grain(heads * dim), [&](std::int64_t begin, std::int64_t end) {
      Row<T> row(heads * dim);
      for (auto token = begin; token < end; ++token) {
        float* rotated = row.update(data + token * stride, heads * dim);
        for (std::int64_t head = 0; head < heads; ++head) {
          cpu::rope_row(rotated + head * dim, cos + token * half, sin + token * half, sign, dim);
        }
        row.put();
      }
    });
  });
}

}  // namespace lorascale::nn
