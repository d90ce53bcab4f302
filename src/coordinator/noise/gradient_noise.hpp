// The vocabulary of the gradient noise scale: what the trainer measures of an update, and what the
// coordinator says of it. Norms are taken after unscaling and before clipping; all sums in fp64.
// B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018) is in samples, tr(Sigma) is per sample.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorascale::coordinator {

// Two sums over the K leaves of an update: leaf k has the mean gradient g_k and the weight n_k (its
// targets), gbar = sum n_k g_k / sum n_k is the gradient of the update.
struct SquareNorms {
  double weighted_leaf_square = 0;  // sum of n_k |g_k|^2
  double mean_square = 0;           // |gbar|^2
};

// Of one group of parameters, such as "lora_A". Each update reports the same groups in the same
// order. Leaves without targets are left out of all of it.
struct GroupNorms {
  std::string group;
  std::int64_t leaves = 0;  // K
  double weight = 0;        // sum of n_k, in any unit
  SquareNorms raw;
  // The same of x / (sqrt(v) + eps), the metric in which Adam moves; v from before the update, left
  // out while v has seen too little.
  std::optional<SquareNorms> preconditioned;
};

struct NoiseReading {
  double b_simple = 0;  // samples; 0 where the averages are not both above 0
  double relative_sd = 0;
  double trace = 0;            // averaged tr(Sigma), per sample
  double gradient_square = 0;  // averaged |G|^2; may be negative
  double updates = 0;          // the number of equal updates that would average as well
  bool known = false;          // only then may a decision follow from it
  std::string_view unknown_because = "nothing was measured";  // empty where it is known
};

struct GroupNoise {
  std::string group;
  NoiseReading raw;
  std::optional<NoiseReading> preconditioned;
};

struct NoiseReport {
  std::vector<GroupNoise> groups;
  NoiseReading combined;  // for the batch as a whole; noise_monitor.hpp says of what
  std::string source;     // what the combined reading was made of, in words
};

}  // namespace lorascale::coordinator
