#include "adapters/formats/factor.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <optional>

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

at::Tensor read_rows(const io::SafetensorsFile& file, const std::string& key) {
  const auto dimensions = file.at(key).shape.size();
  if (dimensions != 1 && dimensions != 2) {
    refuse(file, key, "must be vectors below one another");
  }
  const at::Tensor rows = read_finite(file, key);
  return rows.view({-1, rows.size(-1)});
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

at::Tensor read_line(const io::SafetensorsFile& file, const std::string& key) {
  const auto& shape = file.at(key).shape;
  if (std::ranges::count_if(shape, [](auto n) { return n != 1; }) > 1) {
    refuse(file, key, "must be numbers in a line");
  }
  return read_finite(file, key).flatten();
}

double read_number(const io::SafetensorsFile& file, const std::string& key) {
  const auto& info = file.at(key);
  const auto stored = io::dtype_name(info.dtype);
  const auto type = stored == "I64" ? std::optional(at::kLong) : nn::float_type_stored_as(stored);
  at::Tensor number = at::empty(info.shape, at::TensorOptions().dtype(type.value_or(at::kFloat)));
  if (!type || number.numel() != 1) {
    refuse(file, key, "is no single number");
  }
  file.read(info, nn::writable_bytes(number));
  const auto value = number.to(at::kDouble).item<double>();
  if (!std::isfinite(value)) {
    refuse(file, key, "is " + std::to_string(value));
  }
  return value;
}

at::ScalarType stored_type(const io::SafetensorsFile& file) {
  std::optional<at::ScalarType> type;
  for (const auto& tensor : file.tensors()) {
    if (tensor.shape.size() < 2) {
      continue;  // alphas, which many write in fp32 whatever the factors are
    }
    const auto stored = nn::float_type_stored_as(io::dtype_name(tensor.dtype));
    if (!stored || (type && *type != *stored)) {
      return at::kFloat;
    }
    type = stored;
  }
  return type.value_or(at::kFloat);
}

bool is_exact_in(at::ScalarType type, const at::Tensor& value) {
  return value.to(type).to(value.scalar_type()).equal(value);
}

void FactorsToWrite::add(const std::string& key, const at::Tensor& value) {
  const at::Tensor rounded = value.to(type_);
  if (!rounded.isfinite().all().item<bool>()) {
    throw_bad_input(key + " has numbers beyond what " + std::string(nn::float_type(type_).name) +
                    " holds; choose bf16 or fp32");
  }
  add_as_is(key, rounded);
}

void FactorsToWrite::add_as_is(const std::string& key, const at::Tensor& value) {
  kept_.push_back(value.contiguous());
  const auto& type = nn::float_type(value.scalar_type());
  tensors_.push_back({key, *io::dtype_from_name(type.safetensors), value.sizes().vec(),
                      nn::bytes_of(kept_.back())});
}

}  // namespace lorascale::adapters
