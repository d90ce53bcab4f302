#include "nn/conv2d.hpp"

#include <algorithm>

#include "nn/convolution.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {

Site Conv2d::site() {
  return {name, SiteKind::kConv2d, weight, geometry, &deltas, 0};
}

std::int64_t Conv2d::kept_width() const {
  std::int64_t width = 0;
  for (const auto& attached : deltas) {
    width += attached.delta->kept_width();
  }
  return width;
}

at::Tensor Conv2d::forward(const at::Tensor& x, const SampleRows* rows, Conv2dSaved* saved) const {
  at::Tensor y = convolve(x, weight, bias, geometry);
  for (const auto& attached : deltas) {
    attached.delta->forward(x, y, rows, saved != nullptr ? &saved->deltas.emplace_back() : nullptr);
  }
  return y;
}

// The gradient of x * W + b: dy itself, unless a delta scales what it is given. The last delta that
// was applied comes first.
at::Tensor Conv2d::output_gradient(const at::Tensor& dy, const Conv2dSaved& saved) const {
  if (std::ranges::none_of(
          deltas, [](const auto& attached) { return attached.delta->changes_output_gradient(); })) {
    return dy;
  }
  at::Tensor result = dy.clone();
  for (std::size_t i = deltas.size(); i-- > 0;) {
    deltas[i].delta->to_output_gradient(result, saved.deltas[i]);
  }
  return result;
}

at::Tensor Conv2d::backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                            const Conv2dSaved& saved, bool need_dx) const {
  const at::Tensor base_dy = output_gradient(dy, saved);
  at::Tensor dx;
  if (need_dx) {
    dx = convolution_input_gradient(base_dy, x, weight, geometry);
  }
  if (weight_grad.defined()) {
    accumulate_convolution(weight_grad, base_dy, x, geometry);
  }
  if (bias_grad.defined()) {
    bias_grad.add_(base_dy.sum({0, 2, 3}, /*keepdim=*/false, sum_type(base_dy)));
  }
  for (std::size_t i = 0; i < deltas.size(); ++i) {
    deltas[i].delta->backward(dy, x, rows, saved.deltas[i], dx);
  }
  return dx;
}

}  // namespace lorascale::nn
