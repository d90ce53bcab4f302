#include "adapters/formats/factor.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.hpp"
#include "nn/dtypes.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::adapters {

namespace {

[[noreturn]] void refuse(const io::SafetensorsFile& file, const std::string& key,
                         const std::string& what) {
  throw_bad_input(file.path().string() + ": " + key + " " + what);
}

// fp32 on the CPU.
at::Tensor read_finite(const io::SafetensorsFile& file, const std::string& key) {
  const auto& info = file.at(key);
  const auto type = nn::float_type_stored_as(io::dtype_name(info.dtype));
  if (!type) {
    refuse(
        file, key,
        "has type " + std::string(io::dtype_name(info.dtype)) + "; adapters are F32, F16 or BF16");
  }
  at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(*type));
  if (tensor.numel() == 0) {
    refuse(file, key, "is empty");
  }
  file.read(info, nn::writable_bytes(tensor));
  tensor = tensor.to(at::kFloat);
  if (!tensor.isfinite().all().item<bool>()) {
    refuse(file, key, "holds NaN or infinite values");
  }
  return tensor;
}

}  // namespace

at::Tensor read_factor(const io::SafetensorsFile& file, const std::string& key) {
  const auto dimensions = file.at(key).shape.size();
  if (dimensions != 2 && dimensions != 4) {
    refuse(file, key, "must be a matrix, or of a convolution have four dimensions");
  }
  return read_finite(file, key);
}

at::Tensor read_vector(const io::SafetensorsFile& file, const std::string& key) {
  const auto& shape = file.at(key).shape;
  const bool of_outputs =
      !shape.empty() && std::all_of(shape.begin() + 1, shape.end(), [](auto n) { return n == 1; });
  // Convolutions of peft and diffusers have [1, out, 1, 1].
  const bool of_convolution = shape.size() == 4 && shape[0] == 1 && shape[2] == 1 && shape[3] == 1;
  if (!of_outputs && !of_convolution) {
    refuse(file, key,
           "has numbers for a layer's inputs, not its outputs; such a DoRA cannot be applied "
           "(merge it with the program that made it)");
  }
  return read_finite(file, key).flatten();
}

}  // namespace lorascale::adapters
