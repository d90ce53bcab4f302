// The nonlinear functions of transformers for pictures and captions: gelu by the error function
// (Hendrycks & Gimpel 2016), its quick form x sigmoid(1.702 x), and GEGLU (Shazeer 2020).
#pragma once

#include <ATen/core/Tensor.h>

namespace lorascale::nn {

enum class Activation { kGelu, kQuickGelu };

at::Tensor activate(const at::Tensor& x, Activation activation);
// dx = dy f'(x)
at::Tensor activation_backward(const at::Tensor& dy, const at::Tensor& x, Activation activation);

// joint: [rows, 2 d] = [a | g] -> a gelu(g), [rows, d].
at::Tensor geglu(const at::Tensor& joint);
// Gradient of joint.
at::Tensor geglu_backward(const at::Tensor& dy, const at::Tensor& joint);

}  // namespace lorascale::nn
