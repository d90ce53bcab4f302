// Convolution of [samples, channels, height, width] and its two gradients: what Conv2d and the
// adapters' convolutions are made of.
#pragma once

#include <ATen/core/Tensor.h>

#include "nn/site.hpp"

namespace lorascale::nn {

// weight: [out, in / groups, height, width]; bias: [out], or undefined.
at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                    const Conv2dGeometry& geometry);

// What of dy (the gradient of convolve's result) reaches x.
at::Tensor convolution_input_gradient(const at::Tensor& dy, const at::Tensor& x,
                                      const at::Tensor& weight, const Conv2dGeometry& geometry);

// target (fp32 in the weight's shape; fp64 in tests) += scale * the weight's gradient. That of
// 16-bit numbers is formed in fp32, as accumulate_product() does it.
void accumulate_convolution(const at::Tensor& target, const at::Tensor& dy, const at::Tensor& x,
                            const Conv2dGeometry& geometry, double scale = 1.0);

}  // namespace lorascale::nn
