#include "coordinator/memory/leaf_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {
namespace {

double noise_of(const LeafSpeed& a, const LeafSpeed& b) {
  return std::clamp(std::max(a.noise, b.noise), kLeastSpeedNoise, kMostSpeedNoise);
}

bool as_fast(const LeafSpeed& candidate, const LeafSpeed& fastest) {
  return candidate.samples_per_second >=
         fastest.samples_per_second * (1 - noise_of(candidate, fastest));
}

std::string rounded(double value, double digits) {
  return to_text(std::round(value * digits) / digits);
}

}  // namespace

std::int64_t fastest_leaf(std::span<const LeafSpeed> speeds) {
  if (speeds.empty()) {
    return 0;
  }
  // Of two that ran at the same speed to the last bit the smaller one, whatever their order.
  const auto& fastest = *std::ranges::max_element(speeds, [](const auto& a, const auto& b) {
    return a.samples_per_second < b.samples_per_second ||
           (a.samples_per_second == b.samples_per_second && a.leaf_size > b.leaf_size);
  });
  std::int64_t chosen = fastest.leaf_size;
  for (const auto& speed : speeds) {
    if (as_fast(speed, fastest)) {
      chosen = std::min(chosen, speed.leaf_size);
    }
  }
  return chosen;
}

std::string speeds_text(std::vector<LeafSpeed> speeds) {
  std::ranges::sort(speeds, {}, &LeafSpeed::leaf_size);
  std::string text;
  for (const auto& speed : speeds) {
    const double noise = std::clamp(speed.noise, kLeastSpeedNoise, kMostSpeedNoise);
    text += fmt::format("{}{}: {} (noise {} %)", text.empty() ? "" : ", ", speed.leaf_size,
                        rounded(speed.samples_per_second, speed.samples_per_second < 10 ? 100 : 10),
                        rounded(100 * noise, 1));
  }
  return text;
}

}  // namespace lorascale::coordinator
