// RMSNorm (Zhang & Sennrich 2019) on [rows, d], forward and backward by hand. Inner arithmetic is
// fp32; for 16-bit inputs the normalised value is rounded before it is scaled by the weight, as the
// models' authors do.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorascale::nn {

struct RmsNormResult {
  at::Tensor y;     // as x
  at::Tensor rstd;  // [rows] fp32, for the backward
};
RmsNormResult rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// y again, from the saved rstd.
at::Tensor rms_norm_apply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd);

// dx += d(rms_norm)/dx · dy; where weight_grad (fp32 [d]) is defined, the weight's gradient is
// added to it.
void rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& rstd, at::Tensor& dx, const at::Tensor& weight_grad);

}  // namespace lorascale::nn
