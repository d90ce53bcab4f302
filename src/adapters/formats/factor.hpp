// A factor of a LoRA in a file of whatever form.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "io/safetensors.hpp"

namespace lorascale::adapters {

// fp32 on the CPU: a matrix, or of a convolution four dimensions, none of them 0. Error(kBadInput)
// where it is neither, of another type than F32, F16 and BF16, or not finite.
at::Tensor read_factor(const io::SafetensorsFile& file, const std::string& key);
// Numbers of DoRA, one for each output of a layer, in whatever shape, as fp32 [out] on the CPU.
// Errors as above.
at::Tensor read_vector(const io::SafetensorsFile& file, const std::string& key);

}  // namespace lorascale::adapters
