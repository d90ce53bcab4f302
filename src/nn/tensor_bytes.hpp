// The memory of a contiguous CPU tensor as bytes, for files and messages.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>

namespace lorascale::nn {

std::span<std::byte> writable_bytes(const at::Tensor& tensor);
std::span<const std::byte> bytes_of(const at::Tensor& tensor);

}  // namespace lorascale::nn
