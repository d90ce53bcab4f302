#include "nn/convolution.hpp"

#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>

#include "base/error.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

constexpr std::array<std::int64_t, 2> kUndilated = {1, 1};
constexpr std::array<std::int64_t, 2> kNoOutputPadding = {0, 0};

}  // namespace

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    const Conv2dGeometry& geometry) {
  if (is_slow_in_its_type(x)) {
    return convolve(fp32(x), fp32(weight), fp32(bias), geometry).to(at::kBFloat16);
  }
  return at::convolution(x, weight, bias, geometry.stride, geometry.padding, kUndilated,
                         /*transposed=*/false, kNoOutputPadding, geometry.groups);
}

at::Tensor convolution_input_gradient(const at::Tensor& dy, const at::Tensor& x,
                                      const at::Tensor& weight, const Conv2dGeometry& geometry) {
  if (is_slow_in_its_type(dy)) {
    return convolution_input_gradient(fp32(dy), fp32(x), fp32(weight), geometry).to(at::kBFloat16);
  }
  return std::get<0>(at::convolution_backward(
      dy, x, weight, at::OptionalIntArrayRef(), geometry.stride, geometry.padding, kUndilated,
      /*transposed=*/false, kNoOutputPadding, geometry.groups, {true, false, false}));
}

void accumulate_convolution(const at::Tensor& target, const at::Tensor& dy, const at::Tensor& x,
                            const Conv2dGeometry& geometry, double scale) {
  LS_ASSERT(target.element_size() >= 4);
  const auto wide = sum_type(x);
  // Of the weight its shape alone is asked for.
  const at::Tensor weight = at::empty(target.sizes(), target.options().dtype(wide));
  const at::Tensor gradient = std::get<1>(at::convolution_backward(
      dy.to(wide), x.to(wide), weight, at::OptionalIntArrayRef(), geometry.stride, geometry.padding,
      kUndilated, /*transposed=*/false, kNoOutputPadding, geometry.groups, {false, true, false}));
  target.add_(gradient, scale);
}

}  // namespace lorascale::nn
