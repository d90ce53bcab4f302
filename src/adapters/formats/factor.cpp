#include "adapters/formats/factor.hpp"

#include <ATen/ops/empty.h>

#include "base/error.hpp"
#include "nn/dtypes.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::adapters {

at::Tensor read_factor(const io::SafetensorsFile& file, const std::string& key) {
  const auto& info = file.at(key);
  const auto refuse = [&](const std::string& what) {
    throw_bad_input(file.path().string() + ": " + key + " " + what);
  };
  const auto type = nn::float_type_stored_as(io::dtype_name(info.dtype));
  if (!type) {
    refuse("has type " + std::string(io::dtype_name(info.dtype)) +
           "; adapters are F32, F16 or BF16");
  }
  if (info.shape.size() != 2 && info.shape.size() != 4) {
    refuse("must be a matrix, or of a convolution have four dimensions");
  }
  at::Tensor tensor = at::empty(info.shape, at::TensorOptions().dtype(*type));
  if (tensor.numel() == 0) {
    refuse("is empty");
  }
  file.read(info, nn::writable_bytes(tensor));
  tensor = tensor.to(at::kFloat);
  if (!tensor.isfinite().all().item<bool>()) {
    refuse("holds NaN or infinite values");
  }
  return tensor;
}

}  // namespace lorascale::adapters
