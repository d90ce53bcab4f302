#include "models/weights_reader.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "io/untrusted_text.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::models {
namespace {

std::string text(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (const auto size : shape) {
    out += (out.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return out + "]";
}

// Files hold linear layers as convolutions of 1 x 1, or the other way about: the same numbers.
std::vector<std::int64_t> without_ones(std::vector<std::int64_t> shape) {
  while (!shape.empty() && shape.back() == 1) {
    shape.pop_back();
  }
  return shape;
}

// A sum is not finite where an element is not, and costs one pass without a copy. A sum of finite
// elements may overflow, which is rare enough for a second look.
bool is_finite(const at::Tensor& tensor) {
  return std::isfinite(tensor.sum(at::kFloat).item<float>()) ||
         tensor.isfinite().all().item<bool>();
}

// Where one part of a slot is read to, and what happens afterwards.
struct PendingPart {
  std::string name;
  at::Tensor staging;  // CPU, stored type
  at::Tensor target;   // view of the weight
};

// The values have arrived: into the weight with them.
void settle(const PendingPart& part, const std::string& where) {
  const auto& [name, staging, target] = part;
  if (!staging.is_same(target)) {
    target.copy_(staging);
  }
  if (!is_finite(staging)) {
    throw_bad_input(where + ": tensor " + io::in_quotes(name) +
                    " holds NaN or infinite values; the file is damaged, get it again");
  }
  if (target.scalar_type() == at::kHalf && staging.scalar_type() != at::kHalf &&
      !is_finite(target)) {
    throw_bad_input(where + ": tensor " + io::in_quotes(name) +
                    " holds values beyond the range of fp16; set model.dtype to bf16 or fp32");
  }
}

}  // namespace

WeightsReader::WeightsReader(const std::filesystem::path& file_or_folder)
    : files_(file_or_folder), where_(file_or_folder.string()) {}

const io::TensorInfo& WeightsReader::at(const std::string& key) const {
  return files_.at(stored(key));
}

at::ScalarType WeightsReader::type_of(const io::TensorInfo& info) const {
  switch (info.dtype) {
    case io::Dtype::kF32:
      return at::kFloat;
    case io::Dtype::kF16:
      return at::kHalf;
    case io::Dtype::kBF16:
      return at::kBFloat16;
    default:
      throw_bad_input(where_ + ": tensor " + io::in_quotes(info.name) + " has type " +
                      std::string(io::dtype_name(info.dtype)) +
                      "; only F32, F16 and BF16 weights are supported");
  }
}

void WeightsReader::check(const std::vector<nn::ParameterSlot>& slots) const {
  for (const auto& slot : slots) {
    for (const auto& part : slot.parts) {
      const auto& info = at(part.key);
      if (without_ones(info.shape) != without_ones(part.shape)) {
        throw_bad_input(where_ + ": tensor " + io::in_quotes(info.name) + " has shape " +
                        text(info.shape) + ", but config.json asks for " + text(part.shape));
      }
      static_cast<void>(type_of(info));
    }
  }
}

void WeightsReader::refuse_others(const std::vector<nn::ParameterSlot>& slots,
                                  const std::function<bool(const std::string&)>& harmless) const {
  std::vector<std::string> used;
  for (const auto& slot : slots) {
    for (const auto& part : slot.parts) {
      used.push_back(stored(part.key));
    }
  }
  std::sort(used.begin(), used.end());
  for (const auto& key : files_.keys()) {
    if (!harmless(key) && !std::binary_search(used.begin(), used.end(), key)) {
      throw_bad_input(
          files_.path().string() + ": tensor " + io::in_quotes(key) +
          " has no place in a model of this config.json; is it another architecture, or an "
          "adapter that must be merged first?");
    }
  }
}

void WeightsReader::read(const std::vector<nn::ParameterSlot>& slots) const {
  for (const auto& slot : slots) {
    beat("reading the model");
    read_slot(slot);
  }
}

void WeightsReader::read_slot(const nn::ParameterSlot& slot) const {
  std::vector<PendingPart> pending;
  std::int64_t first = 0;
  for (const auto& part : slot.parts) {
    const auto in_file = type_of(at(part.key));
    const at::Tensor target = slot.value->narrow(0, first, part.shape[0]);
    first += part.shape[0];
    const bool direct = target.is_cpu() && target.scalar_type() == in_file;
    pending.push_back({stored(part.key),
                       direct ? target : at::empty(part.shape, at::TensorOptions().dtype(in_file)),
                       target});
  }
  std::vector<io::ModelReader::ReadRequest> requests;
  for (const auto& part : pending) {
    requests.push_back({part.name, nn::writable_bytes(part.staging)});
  }
  files_.read_all(requests);
  for (const auto& part : pending) {
    settle(part, where_);
  }
}

at::Tensor WeightsReader::tensor(const std::string& name) const {
  const auto& info = files_.at(name);
  at::Tensor result = at::empty(info.shape, at::TensorOptions().dtype(type_of(info)));
  const std::array requests = {io::ModelReader::ReadRequest{name, nn::writable_bytes(result)}};
  files_.read_all(requests);
  return result;
}

}  // namespace lorascale::models
