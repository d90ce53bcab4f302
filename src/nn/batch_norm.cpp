#include "nn/batch_norm.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

at::Tensor joined(std::vector<at::Tensor> parts) {
  return parts.size() == 1 ? std::move(parts.front()) : at::cat(parts);
}

}  // namespace

at::Tensor BatchNorm::normalise_group(const at::Tensor& x, BatchNormSaved& saved,
                                      const at::Tensor& statistics) const {
  const auto samples = x.size(0);
  if (samples * x.size(2) * x.size(3) == 1) {
    throw_bad_config(
        name +
        ": batch normalisation over a single value a channel (one sample of 1 x 1) has no "
        "variance; set a micro-batch and ghost_batch of more samples that divide the "
        "batch, larger pictures, or a model with norm: group");
  }
  const auto type = sum_type(x);
  // With momentum 1 the running state becomes the group's mean and unbiased variance.
  const at::Tensor group = at::zeros({2, x.size(1)}, x.options().dtype(type));
  auto [y, mean, rstd] =
      at::native_batch_norm(x, weight.to(type), bias.to(type), group[0], group[1],
                            /*training=*/true, /*momentum=*/1.0, eps);
  if (statistics.defined()) {
    statistics.add_(group, static_cast<double>(samples));
  }
  saved.mean.push_back(std::move(mean));
  saved.rstd.push_back(std::move(rstd));
  return y;
}

at::Tensor BatchNorm::forward(const at::Tensor& x, BatchNormSaved* saved,
                              const at::Tensor& statistics) const {
  const auto type = sum_type(x);
  if (saved == nullptr || !trains()) {
    return std::get<0>(at::native_batch_norm(x, weight.to(type), bias.to(type),
                                             running_mean.to(type), running_var.to(type),
                                             /*training=*/false, /*momentum=*/0.0, eps));
  }
  saved->input = x;
  std::vector<at::Tensor> parts;
  for (const auto& group : x.split(ghost_batch > 0 ? ghost_batch : x.size(0))) {
    parts.push_back(normalise_group(group, *saved, statistics));
  }
  return joined(std::move(parts));
}

at::Tensor BatchNorm::backward(const at::Tensor& dy, const BatchNormSaved& saved,
                               bool need_dx) const {
  const auto type = sum_type(dy);
  if (!trains()) {
    at::Tensor dx;
    if (need_dx) {
      const at::Tensor slope = (running_var.to(type) + eps).rsqrt_().mul_(weight);
      dx = at::empty_like(dy);
      at::mul_out(dx, dy, slope.view({1, -1, 1, 1}));
    }
    return dx;
  }
  const auto size = ghost_batch > 0 ? ghost_batch : dy.size(0);
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < saved.mean.size(); ++i) {
    const auto first = static_cast<std::int64_t>(i) * size;
    const auto count = std::min(size, dy.size(0) - first);
    auto [dx, dweight, dbias] = at::native_batch_norm_backward(
        dy.narrow(0, first, count), saved.input.narrow(0, first, count), weight.to(type),
        /*running_mean=*/{}, /*running_var=*/{}, saved.mean[i], saved.rstd[i], /*train=*/true, eps,
        {need_dx, true, true});
    weight_grad.add_(dweight);
    bias_grad.add_(dbias);
    parts.push_back(std::move(dx));
  }
  return need_dx ? joined(std::move(parts)) : at::Tensor();
}

}  // namespace lorascale::nn
