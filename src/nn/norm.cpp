#include "nn/norm.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <type_traits>

#include "base/error.hpp"
#include "nn/cpu_rows.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

at::Tensor generic_rstd(const at::Tensor& x, double eps) {
  return x.to(at::kFloat).square().mean(-1).add_(eps).rsqrt_();
}

template <class T>
void apply_row(const float* x, const float* w, float rstd, float* y, std::int64_t d) {
  if constexpr (std::is_same_v<T, float>) {
    cpu::rms_norm_apply_row(x, w, rstd, y, d);
  } else {
    cpu::rms_norm_apply_bf16_row(x, w, rstd, y, d);
  }
}

void generic_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                      const at::Tensor& rstd, at::Tensor& dx, const at::Tensor& weight_grad) {
  const at::Tensor normalised = x.to(at::kFloat) * rstd.unsqueeze(-1);
  const at::Tensor dy32 = dy.to(at::kFloat);
  if (weight_grad.defined()) {
    weight_grad.view({x.size(1)}).add_((dy32 * normalised).sum(0));
  }
  const at::Tensor g = dy32 * weight.to(at::kFloat);
  const at::Tensor along = (g * normalised).mean(-1, /*keepdim=*/true);
  dx.add_((g - normalised * along) * rstd.unsqueeze(-1));
}

}  // namespace

RmsNormResult rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!has_cpu_kernels(x)) {
    at::Tensor rstd = generic_rstd(x, eps);
    return {rms_norm_apply(x, weight, rstd), rstd};
  }
  const auto rows = x.size(0);
  const auto d = x.size(1);
  RmsNormResult result{at::empty({rows, d}, x.options()),
                       at::empty({rows}, x.options().dtype(at::kFloat))};
  const at::Tensor wide_weight = weight.to(at::kFloat);
  const float* w = wide_weight.const_data_ptr<float>();
  float* rstd = result.rstd.data_ptr<float>();
  with_element_type(x, [&]<class T>() {
    const T* in = x.const_data_ptr<T>();
    T* out = result.y.data_ptr<T>();
    at::parallel_for(0, rows, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
      Row<T> x_row(d), y_row(d);
      for (auto row = begin; row < end; ++row) {
        const float* values = x_row.read(in + row * x.stride(0), d);
        rstd[row] = cpu::rms_norm_rstd(values, d, static_cast<float>(eps));
        apply_row<T>(values, w, rstd[row], y_row.write(out + row * d, d), d);
        y_row.put();
      }
    });
  });
  return result;
}

at::Tensor rms_norm_apply(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd) {
  if (!has_cpu_kernels(x)) {
    return (x.to(at::kFloat) * rstd.unsqueeze(-1)).to(x.scalar_type()).mul_(weight);
  }
  const auto d = x.size(1);
  at::Tensor y = at::empty({x.size(0), d}, x.options());
  const at::Tensor wide_weight = weight.to(at::kFloat);
  const float* w = wide_weight.const_data_ptr<float>();
  const float* scale = rstd.const_data_ptr<float>();
  with_element_type(x, [&]<class T>() {
    const T* in = x.const_data_ptr<T>();
    T* out = y.data_ptr<T>();
    at::parallel_for(0, x.size(0), row_grain(d), [&](std::int64_t begin, std::int64_t end) {
      Row<T> x_row(d), y_row(d);
      for (auto row = begin; row < end; ++row) {
        apply_row<T>(x_row.read(in + row * x.stride(0), d), w, scale[row],
                     y_row.write(out + row * d, d), d);
        y_row.put();
      }
    });
  });
  return y;
}

void rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& rstd, at::Tensor& dx, const at::Tensor& weight_grad) {
  if (!has_cpu_kernels(x)) {
    generic_backward(dy, x, weight, rstd, dx, weight_grad);
    return;
  }
  LS_ASSERT(dx.stride(1) == 1 && dy.stride(1) == 1);
  const auto rows = x.size(0);
  const auto d = x.size(1);
  const at::Tensor wide_weight = weight.to(at::kFloat);
  const float* w = wide_weight.const_data_ptr<float>();
  const float* scale = rstd.const_data_ptr<float>();
  float* dw = weight_grad.defined() ? weight_grad.data_ptr<float>() : nullptr;
  with_element_type(x, [&]<class T>() {
    const T* grad = dy.const_data_ptr<T>();
    const T* in = x.const_data_ptr<T>();
    T* out = dx.data_ptr<T>();
    const auto some_rows = [&](std::int64_t begin, std::int64_t end) {
      Row<T> dy_row(d), x_row(d), dx_row(d);
      for (auto row = begin; row < end; ++row) {
        cpu::rms_norm_backward_row(dy_row.read(grad + row * dy.stride(0), d),
                                   x_row.read(in + row * x.stride(0), d), w, scale[row],
                                   dx_row.update(out + row * dx.stride(0), d), dw, d);
        dx_row.put();
      }
    };
    if (dw != nullptr) {
      // The weight's gradient sums over rows: one fixed order, so one thread.
      some_rows(0, rows);
    } else {
      at::parallel_for(0, rows, row_grain(d), some_rows);
    }
  });
}

}  // namespace lorascale::nn
