#include "nn/conv2d.hpp"

#include "nn/convolution.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {

Site Conv2d::site() {
  return {name, SiteKind::kConv2d, weight, bias, geometry, &deltas, 0};
}

at::Tensor Conv2d::forward(const at::Tensor& x, const SampleRows* rows, DeltasSaved* saved) const {
  at::Tensor y = convolve(x, weight, bias, geometry);
  deltas.forward(x, y, rows, saved);
  return y;
}

at::Tensor Conv2d::backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                            const DeltasSaved& saved, bool need_dx) const {
  const auto gradients = deltas.output_gradients(dy, saved);
  const auto& of_layer = gradients.of_layer;
  at::Tensor dx;
  if (need_dx) {
    dx = convolution_input_gradient(of_layer, x, weight, geometry);
  }
  if (weight_grad.defined()) {
    accumulate_convolution(weight_grad, of_layer, x, geometry);
  }
  if (bias_grad.defined()) {
    bias_grad.add_(of_layer.sum({0, 2, 3}, /*keepdim=*/false, sum_type(of_layer)));
  }
  deltas.backward(gradients, x, rows, saved, dx);
  return dx;
}

}  // namespace lorascale::nn
