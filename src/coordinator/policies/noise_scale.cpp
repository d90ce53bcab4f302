// noise-scale: batch warmup along the critical batch (Merrill et al. 2025): B <= c * B_crit, grown
// only. The critical batch is near 0 when training begins and rises quickly, so a small batch early
// costs few steps and saves samples. c is batch.critical_fraction, 1 unless told otherwise.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "coordinator/policies/policies.hpp"

namespace lorascale::coordinator {
namespace {

class NoiseScale : public BatchPolicy {
 public:
  std::optional<BatchWish> wish(const BatchContext& context) override {
    const CriticalBatch& critical = context.critical;
    if (!critical.usable()) {
      return std::nullopt;
    }
    const double share = context.recipe.critical_fraction;
    constexpr double kLargestInteger = 0x1p53;  // of a double
    const double wanted = std::min(share * critical.samples, kLargestInteger);
    if (wanted <= static_cast<double>(context.batch)) {
      return std::nullopt;
    }
    return BatchWish{
        static_cast<std::int64_t>(std::floor(wanted)),
        fmt::format("the critical batch is {} +- {} %, and {} of it may be used",
                    to_text(critical.samples), to_text(100 * critical.relative_sd), to_text(share)),
        {{"critical_batch", critical.samples},
         {"relative_sd", critical.relative_sd},
         {"critical_fraction", share}}};
  }

  [[nodiscard]] std::string describe(const Recipe& recipe) const override {
    return fmt::format("the batch grows from {} with {} of the {}", recipe.global_batch,
                       to_text(recipe.critical_fraction),
                       recipe.critical_batch > 0
                           ? "given critical batch of " + to_text(recipe.critical_batch)
                           : "measured critical batch");
  }

  [[nodiscard]] std::vector<std::string> contradictions(const Recipe& recipe) const override {
    const auto line = lacks_critical_batch(recipe, "batch.policy noise-scale");
    return line ? std::vector<std::string>{*line} : std::vector<std::string>();
  }
};

}  // namespace

std::unique_ptr<BatchPolicy> make_noise_scale_policy() {
  return std::make_unique<NoiseScale>();
}

}  // namespace lorascale::coordinator
