#include "nn/activation.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/sigmoid.h>

namespace lorascale::nn {
namespace {

constexpr double kQuick = 1.702;

}  // namespace

at::Tensor activate(const at::Tensor& x, Activation activation) {
  return activation == Activation::kGelu ? at::gelu(x) : at::sigmoid(x * kQuick) * x;
}

at::Tensor activation_backward(const at::Tensor& dy, const at::Tensor& x, Activation activation) {
  if (activation == Activation::kGelu) {
    return at::gelu_backward(dy, x);
  }
  const at::Tensor s = at::sigmoid(x * kQuick);
  // (x s)' = s (1 + 1.702 x (1 - s))
  return (1 - s).mul_(x).mul_(kQuick).add_(1).mul_(s).mul_(dy);
}

at::Tensor geglu(const at::Tensor& joint) {
  const auto d = joint.size(1) / 2;
  return at::gelu(joint.narrow(1, d, d)).mul_(joint.narrow(1, 0, d));
}

at::Tensor geglu_backward(const at::Tensor& dy, const at::Tensor& joint) {
  const auto d = joint.size(1) / 2;
  const at::Tensor a = joint.narrow(1, 0, d), g = joint.narrow(1, d, d);
  at::Tensor djoint = at::empty_like(joint);
  djoint.narrow(1, 0, d).copy_(at::gelu(g).mul_(dy));
  djoint.narrow(1, d, d).copy_(at::gelu_backward(dy * a, g));
  return djoint;
}

}  // namespace lorascale::nn
