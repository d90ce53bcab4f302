// The weights of a whole model as one safetensors file, in their own type, by the names of the
// checkpoint that they come from.
#pragma once

#include <filesystem>
#include <vector>

#include "nn/parameter_slot.hpp"

namespace lorascale::adapters {

// Makes `folder` and writes model.safetensors into it.
void write_weights(const std::filesystem::path& folder,
                   const std::vector<nn::ParameterSlot>& slots);

}  // namespace lorascale::adapters
