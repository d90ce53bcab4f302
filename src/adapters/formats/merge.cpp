#include "adapters/formats/merge.hpp"

#include <ATen/TensorOperators.h>

#include "base/error.hpp"

namespace lorascale::adapters {

void merge_into_weights(const PeftAdapter& adapter, const std::vector<nn::Site>& sites) {
  std::size_t merged = 0;
  for (const auto& site : sites) {
    const auto found = adapter.modules.find(site.name);
    if (found == adapter.modules.end()) {
      continue;
    }
    at::Tensor weight = site.weight;
    const at::Tensor change = found->second.weight_change();
    if (change.sizes() != weight.sizes()) {
      throw_bad_input("the adapter's " + found->first + " does not fit this model's shape");
    }
    weight.copy_(weight.to(at::kFloat) + change.to(weight.device()));
    ++merged;
  }
  if (merged != adapter.modules.size()) {
    throw_bad_input("the adapter has layers that this model lacks; it was made for '" +
                    adapter.base_model + "'");
  }
}

}  // namespace lorascale::adapters
