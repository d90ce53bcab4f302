#include "models/diffusion/unet_resnet.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>

#include "models/diffusion/parts.hpp"

namespace lorascale::models::diffusion {

ResnetBlock::ResnetBlock(const std::string& prefix, const Shape& shape,
                         const at::TensorOptions& options)
    : norm1_(group_norm(prefix + "norm1", shape.in, shape.groups, shape.eps, options)),
      norm2_(group_norm(prefix + "norm2", shape.out, shape.groups, shape.eps, options)),
      conv1_(convolution(prefix + "conv1", shape.in, shape.out, 3, 1, options)),
      conv2_(convolution(prefix + "conv2", shape.out, shape.out, 3, 1, options)) {
  if (shape.in != shape.out) {
    shortcut_ = convolution(prefix + "conv_shortcut", shape.in, shape.out, 1, 1, options);
  }
  if (shape.time > 0) {
    time_ =
        linear_group({{prefix + "time_emb_proj", shape.out}}, shape.time, /*bias=*/true, options);
  }
}

bool ResnetBlock::trains() const {
  return norm1_.trains() || norm2_.trains() || conv1_.trains() || conv2_.trains() ||
         (shortcut_ && shortcut_->trains()) || (time_ && time_->trains());
}

at::Tensor ResnetBlock::forward(const at::Tensor& x, const at::Tensor& time,
                                const nn::SampleRows* rows, ResnetSaved* saved) const {
  const at::Tensor first = at::silu(norm1_.forward(x, saved ? &saved->norm1 : nullptr));
  at::Tensor middle = conv1_.forward(first, rows, saved ? &saved->conv1 : nullptr);
  if (time_) {
    const at::Tensor shift = time_->forward(time, rows, saved ? &saved->time : nullptr);
    middle.add_(shift.unsqueeze(2).unsqueeze(3));
  }
  const at::Tensor second = at::silu(norm2_.forward(middle, saved ? &saved->norm2 : nullptr));
  at::Tensor y = conv2_.forward(second, rows, saved ? &saved->conv2 : nullptr);
  return y.add_(shortcut_ ? shortcut_->forward(x, rows, saved ? &saved->shortcut : nullptr) : x);
}

at::Tensor ResnetBlock::backward(const at::Tensor& dy, const at::Tensor& time,
                                 const nn::SampleRows* rows, const ResnetSaved& saved, bool need_dx,
                                 at::Tensor& dtime) const {
  const at::Tensor normed2 = norm2_.apply(saved.norm2);
  const at::Tensor dsecond =
      conv2_.backward(dy, at::silu(normed2), rows, saved.conv2, /*need_dx=*/true);
  const at::Tensor dmiddle =
      norm2_.backward(at::silu_backward(dsecond, normed2), saved.norm2, /*need_dx=*/true);
  if (time_ && (time_->trains() || dtime.defined())) {
    const at::Tensor dshift = dmiddle.sum({2, 3});
    const at::Tensor dx = time_->backward(dshift, time, rows, saved.time, dtime.defined());
    if (dtime.defined()) {
      dtime.add_(dx);
    }
  }
  const at::Tensor& x = saved.norm1.input;
  at::Tensor dx;
  if (need_dx || conv1_.trains() || norm1_.trains()) {
    const at::Tensor normed1 = norm1_.apply(saved.norm1);
    const bool need_normed = need_dx || norm1_.trains();
    const at::Tensor dfirst =
        conv1_.backward(dmiddle, at::silu(normed1), rows, saved.conv1, need_normed);
    if (need_normed) {
      dx = norm1_.backward(at::silu_backward(dfirst, normed1), saved.norm1, need_dx);
    }
  }
  if (shortcut_ && (need_dx || shortcut_->trains())) {
    const at::Tensor through = shortcut_->backward(dy, x, rows, saved.shortcut, need_dx);
    return need_dx ? dx.add_(through) : at::Tensor();
  }
  return need_dx ? dx.add_(dy) : at::Tensor();
}

void ResnetBlock::add_sites(std::vector<nn::Site>& sites) {
  sites.push_back(conv1_.site());
  if (time_) {
    sites.push_back(time_->sites().front());
  }
  sites.push_back(conv2_.site());
  if (shortcut_) {
    sites.push_back(shortcut_->site());
  }
}

void ResnetBlock::add_slots(std::vector<nn::ParameterSlot>& slots) {
  add_norm_slots(norm1_, slots);
  add_convolution_slots(conv1_, slots);
  if (time_) {
    time_->add_slots(slots);
  }
  add_norm_slots(norm2_, slots);
  add_convolution_slots(conv2_, slots);
  if (shortcut_) {
    add_convolution_slots(*shortcut_, slots);
  }
}

}  // namespace lorascale::models::diffusion
