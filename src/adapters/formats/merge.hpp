// Merging an adapter into the weights of its base.
#pragma once

#include <vector>

#include "adapters/formats/peft.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

// Adds strength s B A to the weights, in fp32, rounded once. Throws where a module is not in the
// model.
void merge_into_weights(const PeftAdapter& adapter, const std::vector<nn::Site>& sites,
                        double strength = 1);

}  // namespace lorascale::adapters
