#include "models/diffusion/kept_tensors.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "base/error.hpp"
#include "nn/tensor_bytes.hpp"

namespace lorascale::models::diffusion {

at::Tensor KeptTensors::on_disk(const std::string& key, const std::vector<std::int64_t>& shape,
                                const at::TensorOptions& options) const {
  if (store_ == nullptr) {
    return {};
  }
  if (!store_->has(key)) {
    store_->refresh();
  }
  const auto value = store_->read(key);
  at::Tensor tensor = at::empty(shape, options.device(at::kCPU));
  if (!value || value->size() != tensor.nbytes()) {
    return {};
  }
  std::ranges::copy(*value, nn::writable_bytes(tensor).begin());
  return tensor.to(options.device());
}

at::Tensor KeptTensors::get(const std::string& key, const std::vector<std::int64_t>& shape,
                            const at::TensorOptions& options,
                            const std::function<at::Tensor()>& compute) {
  if (const auto found = in_memory_.find(key); found != in_memory_.end()) {
    return found->second;
  }
  at::Tensor value = on_disk(key, shape, options);
  if (!value.defined()) {
    value = compute();
    LS_ASSERT(value.is_contiguous() && value.sizes() == at::IntArrayRef(shape));
  }
  const auto bytes = static_cast<std::int64_t>(value.nbytes());
  if (bytes_ + bytes <= most_bytes_) {
    bytes_ += bytes;
    in_memory_.emplace(key, value);
  }
  return value;
}

bool KeptTensors::fill(const std::string& key, const std::function<at::Tensor()>& compute) {
  if (store_->has(key)) {
    return false;
  }
  const at::Tensor value = compute().to(at::kCPU);
  store_->add(key, nn::bytes_of(value));
  return true;
}

}  // namespace lorascale::models::diffusion
