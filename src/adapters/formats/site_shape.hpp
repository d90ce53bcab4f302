// What adapters have for layers, in the shapes of files and in those of the model's layers.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "adapters/formats/peft.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

// A linear layer that the base's files hold as a convolution of 1 x 1 is one in files of adapters,
// too; back it is a matrix, whatever the file made of it.
at::Tensor as_stored(const nn::Site& site, const at::Tensor& factor);
at::Tensor in_shape_of(const nn::Site& site, const at::Tensor& factor);

// Whether the layer has as many outputs, or inputs, as there are numbers.
bool fits(const nn::LayerScaling& scaling, const nn::Site& site);

// A module read from a file as the layer takes it. Error(kBadInput) that begins with `where` where
// it is for a layer of another shape.
PeftModule fitted(PeftModule module, const nn::Site& site, const std::string& where);

}  // namespace lorascale::adapters
