// ReLU, in place and backward from its output: nothing else is kept.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorascale::nn {

void relu(at::Tensor& x);

// dy (of y = relu(x)) becomes dx.
void relu_backward(at::Tensor& dy, const at::Tensor& y);

}  // namespace lorascale::nn
