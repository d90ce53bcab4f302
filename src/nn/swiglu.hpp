// SwiGLU (Shazeer 2020): silu(gate) * up on the joint matrix [rows, gate | up].
#pragma once

#include <ATen/core/Tensor.h>

namespace lorascale::nn {

at::Tensor swiglu(const at::Tensor& gate_up);  // [rows, 2d] -> [rows, d]

// Replaces gate_up by its gradient.
void swiglu_backward(const at::Tensor& dy, at::Tensor& gate_up);

}  // namespace lorascale::nn
