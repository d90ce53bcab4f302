// fixed: the batch of the recipe for the whole run.
#include "coordinator/policies/policies.hpp"

namespace lorascale::coordinator {
namespace {

class Fixed : public BatchPolicy {
 public:
  std::optional<BatchWish> wish(const BatchContext& /*context*/) override { return std::nullopt; }
  [[nodiscard]] std::string describe(const Recipe& recipe) const override {
    return "the batch stays " + std::to_string(recipe.global_batch);
  }
};

}  // namespace

std::unique_ptr<BatchPolicy> make_fixed_policy() {
  return std::make_unique<Fixed>();
}

}  // namespace lorascale::coordinator
