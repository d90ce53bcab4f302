#include "adapters/formats/merge.hpp"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "adapters/formats/site_shape.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

std::string made_for(const PeftAdapter& adapter) {
  return "; it was made for '" + adapter.base_model + "'";
}

void add(const PeftModule& module, double strength, at::Tensor& weight) {
  const at::Tensor change = module.weight_change(weight);
  weight.copy_(weight.to(at::kFloat) + change.to(weight.device()) * strength);
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
    if (const auto& scaling = found->second.scaling) {
      if (!fits(*scaling, site)) {
        throw_bad_input("the adapter's " + found->first + " does not fit this model's shape" +
                        made_for(adapter));
      }
      if (site.bias.defined() && scaling->of_bias && !scaling->of_inputs) {
        at::Tensor bias = site.bias;
        bias.copy_(bias.to(at::kFloat) * (1 + strength * scaling->change.to(bias.device())));
      }
      add(found->second, strength, weight);
      ++merged;
      continue;
    }
    const auto sizes = found->second.weight_sizes();
    if (weight.sizes() != at::IntArrayRef(sizes)) {
      throw_bad_input(fmt::format("the adapter's {} does not fit this model's shape: it is for "
                                  "weights of [{}], not [{}]",
                                  found->first, fmt::join(sizes, ", "),
                                  fmt::join(weight.sizes(), ", ")) +
                      made_for(adapter));
    }
    add(found->second, strength, weight);
    ++merged;
  }
  if (merged != adapter.modules.size()) {
    throw_bad_input("the adapter has layers that this model lacks" + made_for(adapter));
  }
}

}  // namespace lorascale::adapters
