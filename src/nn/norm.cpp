#include "nn/norm.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "base/error.hpp"
#include "nn/cpu_kernels.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

at::Tensor generic_rstd(const at::Tensor& x, double eps) {
  return x.to(at::kFloat).square().mean(-1).add_(eps).rsqrt_();
}

}  // namespace

RmsNormResult rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!has_cpu_kernels(x)) {
    at::Tensor rstd = generic_rstd(x, eps);
    return {rms_norm_apply(x, weight, rstd), rstd};
  }
  const auto rows = x.size(0);
  const auto d = x.size(1);
  RmsNormResult result{at::empty_like(x), at::empty({rows}, x.options())};
  const float* in = x.const_data_ptr<float>();
  const float* w = weight.const_data_ptr<float>();
  float* out = result.y.data_ptr<float>();
  float* rstd = result.rstd.data_ptr<float>();
  at::parallel_for(0, rows, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      rstd[row] = cpu::rms_norm_row(in + row * d, w, out + row * d, d, static_cast<float>(eps));
    }
  });
  return result;
}

at::Tensor rms_norm_apply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd) {
  if (!has_cpu_kernels(x)) {
    return (x.to(at::kFloat) * rstd.unsqueeze(-1)).to(x.scalar_type()).mul_(weight);
  }
  at::Tensor y = at::empty_like(x);
  const auto d = x.size(1);
  const float* in = x.const_data_ptr<float>();
  const float* w = weight.const_data_ptr<float>();
  const float* scale = rstd.const_data_ptr<float>();
  float* out = y.data_ptr<float>();
  at::parallel_for(0, x.size(0), row_grain(d), [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      cpu::rms_norm_apply_row(in + row * d, w, scale[row], out + row * d, d);
    }
  });
  return y;
}

void rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& rstd, at::Tensor& dx, const at::Tensor& weight_grad) {
  const auto rows = x.size(0);
  const auto d = x.size(1);
  if (!has_cpu_kernels(x)) {
    const at::Tensor normalised = x.to(at::kFloat) * rstd.unsqueeze(-1);
    const at::Tensor dy32 = dy.to(at::kFloat);
    if (weight_grad.defined()) {
      weight_grad.view({d}).add_((dy32 * normalised).sum(0));
    }
    const at::Tensor g = dy32 * weight.to(at::kFloat);
    const at::Tensor along = (g * normalised).mean(-1, /*keepdim=*/true);
    dx.add_((g - normalised * along) * rstd.unsqueeze(-1));
    return;
  }
  const float* grad = dy.const_data_ptr<float>();
  const float* in = x.const_data_ptr<float>();
  const float* w = weight.const_data_ptr<float>();
  const float* scale = rstd.const_data_ptr<float>();
  float* out = dx.data_ptr<float>();
  LS_ASSERT(dx.is_contiguous() && dy.is_contiguous());
  if (weight_grad.defined()) {
    // The weight's gradient sums over rows: one fixed order, so one thread.
    float* dw = weight_grad.data_ptr<float>();
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto at = row * d;
      cpu::rms_norm_backward_row(grad + at, in + at, w, scale[row], out + at, dw, d);
    }
    return;
  }
  at::parallel_for(0, rows, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      const auto at = row * d;
      cpu::rms_norm_backward_row(grad + at, in + at, w, scale[row], out + at, nullptr, d);
    }
  });
}

}  // namespace lorascale::nn
