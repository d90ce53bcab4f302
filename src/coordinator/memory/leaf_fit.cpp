#include "coordinator/memory/leaf_fit.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "coordinator/batch/batch_guard.hpp"
#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {
namespace {

// How many leaves are measured before the line through them is believed.
constexpr std::size_t kFewestPoints = 2;

}  // namespace

double MemoryLine::peak(std::int64_t leaf_size) const {
  return std::max(fixed + per_sample * static_cast<double>(leaf_size), rest);
}

std::int64_t MemoryLine::largest_leaf(double budget) const {
  if (budget <= 0) {
    return kUnlimited;
  }
  if (rest > budget || fixed > budget) {
    return 0;
  }
  const double leaves = (budget - fixed) / std::max(per_sample, 1.0);
  return static_cast<std::int64_t>(std::min(leaves, static_cast<double>(kUnlimited)));
}

MemoryLine fit_memory(std::span<const LeafMeasurement> measured, double held) {
  double n = 0, x = 0, y = 0;
  MemoryLine line;
  std::int64_t largest = 0;
  for (const auto& leaf : measured) {
    if (leaf.fits) {
      n += 1;
      x += static_cast<double>(leaf.leaf_size);
      y += leaf.compute;
      if (leaf.leaf_size > largest) {
        largest = leaf.leaf_size;
        line.rest = leaf.rest;
      }
    }
  }
  if (n == 0) {
    line.fixed = held;
    return line;
  }
  x /= n;
  y /= n;
  double xx = 0, xy = 0;
  for (const auto& leaf : measured) {
    if (leaf.fits) {
      const double dx = static_cast<double>(leaf.leaf_size) - x;
      xx += dx * dx;
      xy += dx * (leaf.compute - y);
    }
  }
  line.per_sample = xx > 0 ? xy / xx : std::max(0.0, y - held) / x;
  line.fixed = y - line.per_sample * x;
  return line;
}

std::int64_t formula_leaf(double budget, double model, double per_sample) {
  return MemoryLine{model, per_sample, 0}.largest_leaf(budget);
}

std::vector<std::int64_t> usable_leaves(const Recipe& recipe, int world_size, std::int64_t most) {
  const std::int64_t whole = std::gcd(recipe.global_batch, batch_increment(recipe));
  const std::int64_t largest =
      std::max<std::int64_t>(1, std::min(most, recipe.global_batch / world_size));
  std::vector<std::int64_t> leaves;
  for (std::int64_t leaf = 1; leaf <= std::min(whole, largest); ++leaf) {
    if (whole % leaf == 0) {
      leaves.push_back(leaf);
    }
  }
  return leaves;
}

LeafSearch::LeafSearch(std::vector<std::int64_t> usable, LeafAim aim)
    : aim_(aim), usable_(std::move(usable)) {
  LS_ASSERT(!usable_.empty() && std::is_sorted(usable_.begin(), usable_.end()));
  for (const std::int64_t leaf : usable_) {
    const bool few = first_.size() < kFewestPoints;
    if (few || (aim != LeafAim::kLargest && leaf >= 2 * first_.back())) {
      first_.push_back(leaf);
    }
  }
}

bool LeafSearch::gains_no_more() const {
  if (aim_ != LeafAim::kFastest || speeds_.size() < kFewestPoints) {
    return false;
  }
  // Sizes ascend, so what is chosen is below the last two where both of them gain nothing.
  const std::int64_t before = speeds_[speeds_.size() - kFewestPoints].leaf_size;
  return fastest_leaf(speeds_) < before;
}

std::optional<std::int64_t> LeafSearch::next() const {
  if (gains_no_more()) {
    return std::nullopt;
  }
  // One sample is tried whatever is predicted, and so is the second leaf: a line needs two points.
  for (std::size_t i = 0; i < first_.size(); ++i) {
    const bool allowed = i < kFewestPoints || first_[i] <= predicted_;
    if (first_[i] > last_ && first_[i] < smallest_failure_ && allowed) {
      return first_[i];
    }
  }
  for (std::size_t i = usable_.size(); i-- > 0;) {
    const std::int64_t leaf = usable_[i];
    if (leaf <= largest_fit_) {
      return std::nullopt;
    }
    if (leaf < smallest_failure_ && leaf <= predicted_) {
      return leaf;
    }
  }
  return std::nullopt;
}

void LeafSearch::on_measured(std::int64_t leaf_size, bool fits, std::int64_t predicted,
                             const LeafSpeed& speed) {
  last_ = std::max(last_, leaf_size);
  predicted_ = predicted;
  if (fits) {
    largest_fit_ = std::max(largest_fit_, leaf_size);
    if (aim_ == LeafAim::kFastest) {
      speeds_.push_back(speed);
    }
  } else {
    smallest_failure_ = std::min(smallest_failure_, leaf_size);
  }
}

std::string mebibytes(double bytes) {
  return to_text(std::round(bytes / (1 << 20) * 10) / 10) + " MiB";
}

}  // namespace lorascale::coordinator
