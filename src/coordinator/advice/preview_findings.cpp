#include "coordinator/advice/preview_findings.hpp"

#include <fmt/format.h>

#include <cmath>

namespace lorascale::coordinator {
namespace {

constexpr double kAlike = 0.5;
constexpr double kLeaks = 0.5;
constexpr double kForgotten = 1.1;

std::string rounded(double value) {
  return to_text(std::round(100 * value) / 100);
}

Finding finding_of(const Measure& measure, std::string name, std::string text, double limit) {
  return {
      std::move(name),
      std::move(text),
      {{"measure", measure.name}, {"value", measure.value}, {"limit", limit}, {"of", measure.of}}};
}

}  // namespace

std::optional<Finding> preview_finding(const Measure& measure) {
  const auto& [name, value, of] = measure;
  if (name == kSeedsDistance && value < kAlike) {
    return finding_of(
        measure, "seeds_alike",
        fmt::format("pictures of one prompt with different seeds grow alike: of '{}' they lie {} "
                    "times as far from each other as the base model's (1: as varied as before, "
                    "below {}: over-fitted); use an earlier checkpoint or a lower strength, and "
                    "next time fewer steps, a lower optimizer.lr or adapter.rank, or more pictures",
                    of, rounded(value), to_text(kAlike)),
        kAlike);
  }
  if (name == kChangeWithoutWords && value > kLeaks) {
    return finding_of(
        measure, "change_leaks",
        fmt::format("the change is there without its words, too: a prompt without '{}', which the "
                    "captions share, changes {} times as much as with it (0: not at all, above "
                    "{}: it leaks); where only the words are to call it, add pictures for "
                    "regularisation (loss.prior_weight), use a lower strength, or fewer steps",
                    of, rounded(value), to_text(kLeaks)),
        kLeaks);
  }
  if (name == kPriorLoss && value > kForgotten) {
    return finding_of(
        measure, "others_forgotten",
        fmt::format("other subjects fail: the loss of {} is {} times that of the base model "
                    "(above {}: they are unlearnt); raise loss.prior_weight, use a lower strength, "
                    "or next time fewer steps or a lower optimizer.lr",
                    of, rounded(value), to_text(kForgotten)),
        kForgotten);
  }
  return std::nullopt;
}

}  // namespace lorascale::coordinator
