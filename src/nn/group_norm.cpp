#include "nn/group_norm.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/native_group_norm.h>
#include <ATen/ops/native_group_norm_backward.h>

#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

// ATen's kernels keep mean and rstd in the type of x: 16-bit ones would not do.
at::Tensor widened(const at::Tensor& x) {
  return x.to(sum_type(x)).contiguous();
}

}  // namespace

at::Tensor GroupNorm::forward(const at::Tensor& x, GroupNormSaved* saved) const {
  const at::Tensor wide = widened(x);
  auto [y, mean, rstd] =
      at::native_group_norm(wide, weight.to(wide.scalar_type()), bias.to(wide.scalar_type()),
                            x.size(0), x.size(1), x.size(2) * x.size(3), groups, eps);
  if (saved != nullptr) {
    *saved = {x, std::move(mean), std::move(rstd)};
  }
  return y.to(x.scalar_type());
}

at::Tensor GroupNorm::apply(const GroupNormSaved& saved) const {
  const at::Tensor& x = saved.input;
  const auto of_channels = [&](const at::Tensor& of_groups) {
    return of_groups.repeat_interleave(x.size(1) / groups, 1).unsqueeze(2).unsqueeze(3);
  };
  const auto type = saved.rstd.scalar_type();
  const at::Tensor factor = of_channels(saved.rstd) * weight.to(type).view({1, -1, 1, 1});
  const at::Tensor shift = bias.to(type).view({1, -1, 1, 1}) - of_channels(saved.mean) * factor;
  return at::addcmul(shift, x.to(type), factor).to(x.scalar_type());
}

at::Tensor GroupNorm::backward(const at::Tensor& dy, const GroupNormSaved& saved,
                               bool need_dx) const {
  const at::Tensor& x = saved.input;
  const at::Tensor wide = widened(x);
  auto [dx, dweight, dbias] = at::native_group_norm_backward(
      widened(dy), wide, saved.mean, saved.rstd, weight.to(wide.scalar_type()), x.size(0),
      x.size(1), x.size(2) * x.size(3), groups, {need_dx, trains(), trains()});
  if (trains()) {
    weight_grad.add_(dweight);
    bias_grad.add_(dbias);
  }
  return need_dx ? dx.to(x.scalar_type()) : at::Tensor();
}

}  // namespace lorascale::nn
