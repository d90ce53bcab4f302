#include "nn/relu.hpp"

#include <ATen/ops/relu.h>
#include <ATen/ops/threshold_backward.h>

namespace lorascale::nn {

void relu(at::Tensor& x) {
  at::relu_(x);
}

void relu_backward(at::Tensor& dy, const at::Tensor& y) {
  at::threshold_backward_out(dy, dy, y, 0);
}

}  // namespace lorascale::nn
