#include "adapters/full.hpp"

#include "base/error.hpp"

namespace lorascale::adapters {

std::unique_ptr<TrainableParameters> attach_full(const std::vector<nn::ParameterSlot>& slots) {
  LS_ASSERT(!slots.empty());
  TrainableParameters::GroupSpec matrices{{"matrix", 0, 0, 1.0, true}, {}};
  TrainableParameters::GroupSpec vectors{{"vector", 0, 0, 1.0, false}, {}};
  const auto spec_of = [&](const nn::ParameterSlot& slot) -> auto& {
    return slot.value->dim() > 1 ? matrices : vectors;
  };
  for (const auto& slot : slots) {
    for (const auto& part : slot.parts) {
      spec_of(slot).entries.push_back({part.key, part.shape});
    }
  }
  auto parameters = std::make_unique<TrainableParameters>(std::vector{matrices, vectors},
                                                          slots.front().value->device());
  // The parts of a slot lie back to back in the flat vector, as they do in the weight.
  std::size_t next_matrix = 0;
  std::size_t next_vector = matrices.entries.size();
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (const auto& slot : slots) {
    auto& next = slot.value->dim() > 1 ? next_matrix : next_vector;
    const auto offset = parameters->entries()[next].offset;
    next += slot.parts.size();
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, offset, slot.value->numel()).view(slot.value->sizes());
    };
    at::Tensor master = view(parameters->master());
    master.copy_(*slot.value);
    *slot.grad = view(parameters->gradient());
    if (slot.value->scalar_type() == at::kFloat) {
      *slot.value = master;
    } else {
      copies.emplace_back(*slot.value, master);
    }
  }
  if (!copies.empty()) {
    parameters->on_refresh([copies] {
      for (auto [rounded, master] : copies) {
        rounded.copy_(master);
      }
    });
  }
  return parameters;
}

}  // namespace lorascale::adapters
