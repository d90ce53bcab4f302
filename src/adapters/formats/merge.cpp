#include "adapters/formats/merge.hpp"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

std::string made_for(const PeftAdapter& adapter) {
  return "; it was made for '" + adapter.base_model + "'";
}

}  // namespace

void merge_into_weights(const PeftAdapter& adapter, const std::vector<nn::Site>& sites,
                        double strength) {
  std::size_t merged = 0;
  for (const auto& site : sites) {
    const auto found = adapter.modules.find(site.name);
    if (found == adapter.modules.end()) {
      continue;
    }
    at::Tensor weight = site.weight;
    const auto sizes = found->second.weight_sizes();
    if (weight.sizes() != at::IntArrayRef(sizes)) {
      throw_bad_input(fmt::format("the adapter's {} does not fit this model's shape: it is for "
                                  "weights of [{}], not [{}]",
                                  found->first, fmt::join(sizes, ", "),
                                  fmt::join(weight.sizes(), ", ")) +
                      made_for(adapter));
    }
    const at::Tensor change = found->second.weight_change(weight);
    weight.copy_(weight.to(at::kFloat) + change.to(weight.device()) * strength);
    ++merged;
  }
  if (merged != adapter.modules.size()) {
    throw_bad_input("the adapter has layers that this model lacks" + made_for(adapter));
  }
}

}  // namespace lorascale::adapters
