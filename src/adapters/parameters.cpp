#include "adapters/parameters.hpp"

#include <ATen/ops/empty.h>
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

at::Tensor TrainableParameters::computed(const ParameterEntry& entry, at::ScalarType type) {
  at::Tensor master = view(master_, entry);
  if (type == at::kFloat) {
    return master;
  }
  at::Tensor rounded = at::empty(entry.shape, master_.options().dtype(type));
  keep_rounded(rounded, std::move(master));
  return rounded;
}

void TrainableParameters::keep_rounded(at::Tensor rounded, at::Tensor master) {
  copies_.push_back({std::move(rounded), std::move(master)});
}

void TrainableParameters::refresh() const {
  for (auto [rounded, master] : copies_) {
    rounded.copy_(master);
  }
}

}  // namespace lorascale::adapters
