#include "models/diffusion/draws.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "base/portable_math.hpp"

namespace lorascale::models::diffusion {
namespace {

// Numbers of one use of randomness lie in places below it for each round.
constexpr int kBitsOfPlace = 20;

// Box and Muller; the cosine of a uniform angle has one distribution on half a circle and on all
// of it.
float normal(std::uint32_t radius, std::uint32_t angle) {
  const double u = (static_cast<double>(radius) + 1) * 0x1p-32;
  return static_cast<float>(std::sqrt(-2 * natural_log(u)) *
                            cos_pi(static_cast<double>(angle) * 0x1p-32));
}

}  // namespace

std::int64_t draw_time(const SampleKey& key, std::int64_t sample, std::int64_t steps,
                       std::int64_t part, std::int64_t parts) {
  const auto bits = key.stream(sample, static_cast<std::uint32_t>(Draw::kTime))
                        .block(static_cast<std::uint32_t>(part))[0];
  const auto first = steps * part / parts, end = steps * (part + 1) / parts;
  const auto place =
      (static_cast<std::uint64_t>(bits) * static_cast<std::uint64_t>(end - first)) >> 32;
  return first + static_cast<std::int64_t>(place);
}

at::Tensor draw_normal(const SampleKey& key, const std::vector<std::int64_t>& samples, Draw draw,
                       const std::vector<std::int64_t>& shape, std::uint32_t round) {
  std::vector<std::int64_t> sizes = {static_cast<std::int64_t>(samples.size())};
  sizes.insert(sizes.end(), shape.begin(), shape.end());
  at::Tensor result = at::empty(sizes, at::kFloat);
  const auto each = samples.empty() ? 0 : result.numel() / std::ssize(samples);
  float* data = result.data_ptr<float>();
  for (const auto sample : samples) {
    const auto stream = key.stream(sample, static_cast<std::uint32_t>(draw));
    for (std::int64_t i = 0; i < each; i += 2) {
      const auto bits = stream.block((round << kBitsOfPlace) + static_cast<std::uint32_t>(i / 2));
      data[i] = normal(bits[0], bits[1]);
      if (i + 1 < each) {
        data[i + 1] = normal(bits[2], bits[3]);
      }
    }
    data += each;
  }
  return result;
}

}  // namespace lorascale::models::diffusion
