#include "workloads/diffusion/usual_settings.hpp"

#include <fmt/format.h>

namespace lorascale::workloads::diffusion {
namespace {

struct Range {
  double low, high;
  [[nodiscard]] bool holds(double value) const { return low <= value && value <= high; }
};

// docs/stable-diffusion.md has them as a table.
constexpr Range kRateOfAdapters = {1e-5, 1e-3};
constexpr Range kRateOfModels = {1e-7, 2e-5};
constexpr Range kSideOfUsual = {0.75, 1.5};
constexpr double kFewestSamples = 500;
constexpr double kMostTimes = 300;     // that a picture is seen
constexpr double kMostSamples = 6000;  // which is not too much of any number of pictures
constexpr std::int64_t kFewPictures = 30, kHighRank = 64;

}  // namespace

std::vector<std::string> unusual_settings(const TrainingFacts& facts) {
  std::vector<std::string> lines;
  if (!kSideOfUsual.holds(static_cast<double>(facts.side) /
                          static_cast<double>(facts.usual_side))) {
    lines.push_back(fmt::format(
        "most pictures are as large as {0} x {0} pixels, and the model was made for {1} x {1}, at "
        "which programs will use the result; prepare them again with --resolution {1}",
        facts.side, facts.usual_side));
  }
  if (facts.samples && *facts.samples < kFewestSamples) {
    lines.push_back(fmt::format(
        "budget: {:.0f} samples are few; some 1,500 to 3,000 are usual for a style or a subject",
        *facts.samples));
  }
  if (facts.samples && *facts.samples > kMostSamples &&
      *facts.samples > kMostTimes * static_cast<double>(facts.pictures)) {
    lines.push_back(fmt::format(
        "budget: each picture is seen {:.0f} times, and beyond some hundred a model repeats them; "
        "a shorter budget, more pictures, or data.validation with evaluate.early_stop",
        *facts.samples / static_cast<double>(facts.pictures)));
  }
  const auto& rates = facts.adapter ? kRateOfAdapters : kRateOfModels;
  if (facts.adam && facts.rate > 0 && !rates.holds(facts.rate)) {
    lines.push_back(fmt::format("optimizer.lr: {} is {}; {} are usual {}", facts.rate,
                                facts.rate < rates.low ? "low" : "high",
                                facts.adapter ? "5e-5 to 5e-4" : "1e-6 to 1e-5",
                                facts.adapter ? "for LoRA" : "where all weights train"));
  }
  if (facts.adapter && facts.rank > kHighRank && facts.pictures < kFewPictures) {
    lines.push_back(fmt::format(
        "adapter.rank: {} is high for {} pictures, which it can learn by heart; 8 to 32 are usual",
        facts.rank, facts.pictures));
  }
  return lines;
}

}  // namespace lorascale::workloads::diffusion
