// Which of several leaves is the fastest, where their times are known to some accuracy only. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lorascale::coordinator {

// What an update of such leaves runs at.
struct LeafSpeed {
  std::int64_t leaf_size = 0;
  double samples_per_second = 0;  // on all ranks together
  double noise = 0;               // by which share repeated measurements of it differed
};

// Leaves whose speeds differ by less than the noise of either are equally fast. Two or three
// repeats can agree by chance, or be disturbed by another program: the noise counts as at least and
// at most these shares.
inline constexpr double kLeastSpeedNoise = 0.03;
inline constexpr double kMostSpeedNoise = 0.15;

// The smallest leaf that is as fast as the fastest: it takes the least memory. 0 of none. The order
// of `speeds` does not matter.
std::int64_t fastest_leaf(std::span<const LeafSpeed> speeds);

// "2: 19.1 (noise 3 %), 4: 18.7 (noise 5 %)", in samples per second, by leaf.
std::string speeds_text(std::vector<LeafSpeed> speeds);

}  // namespace lorascale::coordinator
