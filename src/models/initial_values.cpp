#include "models/initial_values.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/hash.hpp"
#include "base/portable_math.hpp"
#include "base/rng.hpp"

namespace lorascale::models {
namespace {

constexpr std::uint32_t kDomain = 0x494E4954U;  // "INIT"

// Element `i` is number i % N of those that `make` turns block i / N into.
template <std::size_t N, typename Make>
void fill(const at::Tensor& target, std::uint64_t seed, const std::string& name, Make make) {
  at::Tensor host = at::empty(target.sizes(), at::kFloat);
  float* data = host.data_ptr<float>();
  const auto count = host.numel();
  const auto key = philox_key(mix64(seed) ^ fnv1a64(name));
  constexpr auto kStep = static_cast<std::int64_t>(N);
  at::parallel_for(0, (count + kStep - 1) / kStep, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (auto block = begin; block < end; ++block) {
      const auto low = static_cast<std::uint32_t>(block);
      const auto high = static_cast<std::uint32_t>(static_cast<std::uint64_t>(block) >> 32);
      const std::array<float, N> values = make(philox4x32({low, high, 0, kDomain}, key));
      const auto first = block * kStep;
      std::copy_n(values.begin(), std::min(kStep, count - first), data + first);
    }
  });
  target.copy_(host);
}

// In (0, 1): never an end of it.
double open_uniform(std::uint32_t bits) {
  return (static_cast<double>(bits) + 0.5) * 0x1p-32;
}

// Box & Muller 1958, of half a turn: its cosine is distributed as that of a whole one.
float normal(std::uint32_t radius, std::uint32_t angle, double deviation) {
  return static_cast<float>(deviation * std::sqrt(-2.0 * natural_log(open_uniform(radius))) *
                            cos_pi(open_uniform(angle)));
}

}  // namespace

void fill_uniform(const at::Tensor& target, double bound, std::uint64_t seed,
                  const std::string& name) {
  const auto width = static_cast<float>(bound);
  fill<4>(target, seed, name, [width](const PhiloxBlock& bits) {
    std::array<float, 4> values{};
    std::ranges::transform(bits, values.begin(), [width](std::uint32_t word) {
      return width * (2.0F * uniform24(word) - 1.0F);
    });
    return values;
  });
}

void fill_normal(const at::Tensor& target, double deviation, std::uint64_t seed,
                 const std::string& name) {
  fill<2>(target, seed, name, [deviation](const PhiloxBlock& bits) {
    return std::array<float, 2>{normal(bits[0], bits[1], deviation),
                                normal(bits[2], bits[3], deviation)};
  });
}

}  // namespace lorascale::models
