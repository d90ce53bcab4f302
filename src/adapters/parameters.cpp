#include "adapters/parameters.hpp"

#include <ATen/ops/zeros.h>

#include <utility>

namespace lorascale::adapters {

std::int64_t ParameterEntry::size() const {
  std::int64_t product = 1;
  for (const auto dimension : shape) {
    product *= dimension;
  }
  return product;
}

TrainableParameters::TrainableParameters(std::vector<GroupSpec> groups, at::Device device) {
  std::int64_t offset = 0;
  for (GroupSpec& spec : groups) {
    spec.group.begin = offset;
    for (auto& entry : spec.entries) {
      entry.offset = offset;
      offset += entry.size();
      entries_.push_back(std::move(entry));
    }
    spec.group.end = offset;
    groups_.push_back(std::move(spec.group));
  }
  master_ = at::zeros({offset}, at::TensorOptions().dtype(at::kFloat).device(device));
  gradient_ = at::zeros({offset}, at::TensorOptions().dtype(at::kFloat).device(device));
}

at::Tensor TrainableParameters::view(const at::Tensor& flat, const ParameterEntry& entry) {
  return flat.narrow(0, entry.offset, entry.size()).view(entry.shape);
}

void TrainableParameters::refresh() const {
  for (const auto& action : refresh_actions_) {
    action();
  }
}

}  // namespace lorascale::adapters
