// Merging an adapter into the weights of its base.
#pragma once

#include <vector>

#include "adapters/formats/peft.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

// Adds strength times the adapter's changes to the weights, in fp32, rounded once, and of IA3 that
// scales outputs to their biases. Throws where a module is not in the model.
void merge_into_weights(const PeftAdapter& adapter, const std::vector<nn::Site>& sites,
                        double strength = 1);

}  // namespace lorascale::adapters
