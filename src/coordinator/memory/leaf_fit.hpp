// Which leaf fits into memory, by arithmetic on what was measured: a line peak = fixed + per_sample
// * leaf through the peaks of some leaves, what it predicts for a budget, and the search that ends
// at the largest leaf that was seen to fit on every rank. Bytes and samples; pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "coordinator/memory/leaf_choice.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

// One leaf as a rank measured it. The bytes count everything the rank held at that moment, its
// model included.
struct LeafMeasurement {
  std::int64_t leaf_size = 0;
  bool fits = false;   // false: it ran out of memory, and nothing below is known
  double compute = 0;  // bytes at the peak of forward and backward, which grows with the leaf
  double rest = 0;     // bytes at the peak of the rest of an update, which does not
  double seconds = 0;  // forward and backward, the fastest of some repeats
  double noise = 0;    // by which share the second fastest took longer
  [[nodiscard]] double peak() const { return compute > rest ? compute : rest; }
};

// peak(leaf) = max(fixed + per_sample * leaf, rest).
struct MemoryLine {
  double fixed = 0;
  double per_sample = 0;
  double rest = 0;
  [[nodiscard]] double peak(std::int64_t leaf_size) const;
  // The largest leaf within `budget` bytes; 0 where there is none, kUnlimited where none is too
  // large. A budget of 0 is no limit.
  static constexpr std::int64_t kUnlimited = std::int64_t{1} << 40;
  [[nodiscard]] std::int64_t largest_leaf(double budget) const;
};

// By least squares through those that fit. Of a single one, all above `held` (bytes before the
// leaf) is the sample's. `rest` is that of the largest leaf.
MemoryLine fit_memory(std::span<const LeafMeasurement> measured, double held);

// The rule of thumb: (budget - model) / per sample. It forgets all that is neither weights nor
// activations.
std::int64_t formula_leaf(double budget, double model, double per_sample);

// Leaves that batch.global and every batch of its policy can be cut into on so many ranks, from 1
// upwards, up to `most`: larger ones would leave a rank idle.
std::vector<std::int64_t> usable_leaves(const Recipe& recipe, int world_size, std::int64_t most);

// What a search is for. kLargest: the largest leaf that fits, by a line through the first two.
// kFastest: sizes are doubled until two in a row gain nothing. kAll: they are doubled as far as
// they fit, and the largest is found, too.
enum class LeafAim { kLargest, kFastest, kAll };

// Which leaf to measure next. Equal on all ranks, as it is told what holds for all of them.
class LeafSearch {
 public:
  LeafSearch(std::vector<std::int64_t> usable, LeafAim aim);

  [[nodiscard]] std::optional<std::int64_t> next() const;
  // `fits`: on every rank. `predicted`: the least of what the ranks' lines allow from here on.
  // `speed`: of a leaf that fits; read where the fastest is looked for.
  void on_measured(std::int64_t leaf_size, bool fits, std::int64_t predicted,
                   const LeafSpeed& speed = {});
  // The largest that fits as measured; 0: none does.
  [[nodiscard]] std::int64_t largest() const { return largest_fit_; }

 private:
  [[nodiscard]] bool gains_no_more() const;

  LeafAim aim_;
  std::vector<LeafSpeed> speeds_;
  std::vector<std::int64_t> usable_;
  std::vector<std::int64_t> first_;  // measured without asking the line, as long as it allows them
  std::int64_t largest_fit_ = 0;
  std::int64_t smallest_failure_ = MemoryLine::kUnlimited;
  std::int64_t predicted_ = MemoryLine::kUnlimited;
  std::int64_t last_ = 0;
};

// "12.5 MiB".
std::string mebibytes(double bytes);

}  // namespace lorascale::coordinator
