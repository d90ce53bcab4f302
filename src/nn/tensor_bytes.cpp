#include "nn/tensor_bytes.hpp"

#include "base/error.hpp"

namespace lorascale::nn {

std::span<std::byte> writable_bytes(const at::Tensor& tensor) {
  LS_ASSERT(tensor.is_cpu() && tensor.is_contiguous());
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return writable_bytes(tensor);
}

}  // namespace lorascale::nn
