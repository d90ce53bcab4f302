// `type: full`: every weight of the model is trained. In fp32 the weights become views of the flat
// master; in 16 bit they are rounded copies of it.
#pragma once

#include <memory>
#include <vector>

#include "adapters/adapter.hpp"

namespace lorascale::adapters {

// Matrices decay, vectors (norms, biases) do not, as is usual. The slots must outlive the result.
std::unique_ptr<TrainableParameters> attach_full(const std::vector<nn::ParameterSlot>& slots);

std::unique_ptr<Adapter> make_full_adapter(const config::AdapterSection& section,
                                           const AdaptedModel& model, std::uint64_t seed);

}  // namespace lorascale::adapters
