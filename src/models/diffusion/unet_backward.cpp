// What of a UNet is trained, and the way back through it.
#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/upsample_nearest2d_backward.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "models/diffusion/parts.hpp"
#include "models/diffusion/unet.hpp"

namespace lorascale::models::diffusion {

bool UNet::trains_time() const {
  return time1_.trains() || time2_.trains() || (add1_ && (add1_->trains() || add2_->trains()));
}

// Parts in the order of the forward, as backward() counts them down.
std::size_t UNet::first_trained_part() const {
  std::size_t part = 0;
  std::optional<std::size_t> first;
  const auto next = [&](bool trains) {
    if (trains && !first) {
      first = part;
    }
    ++part;
  };
  const auto next_level = [&](const Level& level) {
    for (std::size_t j = 0; j < level.resnets.size(); ++j) {
      next(level.resnets[j].trains());
      if (!level.transformers.empty()) {
        next(level.transformers[j].trains());
      }
    }
    if (level.sampler) {
      next(level.sampler->trains());
    }
  };
  next(conv_in_.trains());
  std::ranges::for_each(down_, next_level);
  next(middle1_->trains());
  next(middle_->trains());
  next(middle2_->trains());
  std::ranges::for_each(up_, next_level);
  next(norm_.trains());
  next(conv_out_.trains());
  return first.value_or(part);
}

bool UNet::trains() const {
  return trains_time() || first_trained_part() < parts();
}

std::size_t UNet::parts() const {
  std::size_t count = 6;  // conv_in, three in the middle, the last norm and convolution
  for (const auto* side : {&down_, &up_}) {
    for (const auto& level : *side) {
      count += level.resnets.size() + level.transformers.size() + (level.sampler ? 1 : 0);
    }
  }
  return count;
}

void UNet::backward_time(const at::Tensor& dtime, const nn::SampleRows* rows,
                         const UNetSaved& saved, at::Tensor* dadded) const {
  const at::Tensor grad = at::silu_backward(dtime, saved.time);
  const auto through = [&](const nn::LinearGroup& first, const nn::LinearGroup& second,
                           const at::Tensor& input, const at::Tensor& inner,
                           const nn::DeltasSaved& saved1, const nn::DeltasSaved& saved2,
                           bool need_dx) {
    const at::Tensor dinner = second.backward(grad, at::silu(inner), rows, saved2, true);
    return first.backward(at::silu_backward(dinner, inner), input, rows, saved1, need_dx);
  };
  through(time1_, time2_, saved.time_input, saved.time_inner, saved.time1, saved.time2, false);
  if (add1_) {
    const at::Tensor dx = through(*add1_, *add2_, saved.added, saved.added_inner, saved.add1,
                                  saved.add2, dadded != nullptr);
    if (dadded != nullptr) {
      *dadded = dx;
    }
  }
}

void UNet::backward(const at::Tensor& dy, const at::Tensor& context, const nn::SampleRows* rows,
                    UNetSaved& saved, at::Tensor& dcontext, at::Tensor* dadded) const {
  // The time and, with a gradient of its own, the context reach all parts.
  const bool need_time = trains_time() || dadded != nullptr;
  const bool to_the_end = need_time || dcontext.defined();
  const std::size_t first = to_the_end ? 0 : first_trained_part();
  std::size_t part = parts();
  const at::Tensor time = at::silu(saved.time);
  at::Tensor dtime = need_time ? at::zeros_like(time) : at::Tensor();

  // Gradient of the current part's output, then of its input.
  at::Tensor grad;
  const auto enter = [&] { return --part >= first && part < parts(); };
  const auto need_dx = [&] { return part > first; };
  const Beside beside{time, context, rows};
  const auto layer = [&](const Level& level, std::size_t j, UNetSaved::Level& kept) {
    if (recompute_ && need_dx()) {
      run_layer(level, j, kept.inputs[j], beside, &kept);
    }
    if (!level.transformers.empty()) {
      if (!enter()) {
        return false;
      }
      grad = level.transformers[j].backward(grad, context, rows, kept.transformers[j], need_dx(),
                                            dcontext);
    }
    if (!enter()) {
      return false;
    }
    grad = level.resnets[j].backward(grad, time, rows, kept.resnets[j], need_dx(), dtime);
    if (recompute_) {
      kept.inputs[j].reset();
      kept.resnets[j] = {};
      if (!level.transformers.empty()) {
        kept.transformers[j] = {};
      }
    }
    return true;
  };
  const auto run = [&] {
    if (!enter()) {
      return;
    }
    const at::Tensor normed = norm_.apply(saved.norm);
    grad = conv_out_.backward(dy, at::silu(normed), rows, saved.out, need_dx());
    if (!enter()) {
      return;
    }
    grad = norm_.backward(at::silu_backward(grad, normed), saved.norm, need_dx());
    std::vector<at::Tensor> dkept;  // of what was kept on the way down, in its order
    for (std::size_t i = up_.size(); i-- > 0;) {
      if (up_[i].sampler) {
        if (!enter()) {
          return;
        }
        const auto& input = saved.up[i].sampler_input;
        grad = up_[i].sampler->backward(grad, input, rows, saved.up[i].sampler, need_dx());
        if (!need_dx()) {
          return;
        }
        const auto& before = saved.up[i].before_sampler;
        grad = at::upsample_nearest2d_backward(grad, input.sizes().slice(2), before);
      }
      for (std::size_t j = up_[i].resnets.size(); j-- > 0;) {
        if (!layer(up_[i], j, saved.up[i]) || !need_dx()) {
          return;
        }
        const auto own = saved.up[i].widths[j];
        dkept.push_back(grad.narrow(1, own, grad.size(1) - own));
        grad = grad.narrow(1, 0, own).contiguous(at::MemoryFormat::ChannelsLast);
      }
    }
    if (recompute_ && need_dx()) {
      run_middle(saved.middle_input, beside, &saved);
    }
    if (!enter()) {
      return;
    }
    grad = middle2_->backward(grad, time, rows, saved.middle2, need_dx(), dtime);
    if (!enter()) {
      return;
    }
    grad = middle_->backward(grad, context, rows, saved.middle, need_dx(), dcontext);
    if (!enter()) {
      return;
    }
    grad = middle1_->backward(grad, time, rows, saved.middle1, need_dx(), dtime);
    const auto add_kept = [&] {
      grad.add_(dkept.back());
      dkept.pop_back();
    };
    for (std::size_t i = down_.size(); i-- > 0;) {
      if (down_[i].sampler) {
        if (!enter()) {
          return;
        }
        add_kept();
        grad = down_[i].sampler->backward(grad, saved.down[i].sampler_input, rows,
                                          saved.down[i].sampler, need_dx());
      }
      for (std::size_t j = down_[i].resnets.size(); j-- > 0;) {
        if (!need_dx()) {
          return;
        }
        add_kept();
        if (!layer(down_[i], j, saved.down[i])) {
          return;
        }
      }
    }
    if (enter()) {
      add_kept();
      conv_in_.backward(grad, saved.latents, rows, saved.in, /*need_dx=*/false);
    }
  };
  run();
  if (dtime.defined()) {
    backward_time(dtime, rows, saved, dadded);
  }
}

std::vector<nn::Site> UNet::sites() {
  std::vector<nn::Site> sites;
  const auto add_linear = [&](nn::LinearGroup& group) { sites.push_back(group.sites().front()); };
  const auto add_level = [&](Level& level) {
    for (std::size_t j = 0; j < level.resnets.size(); ++j) {
      level.resnets[j].add_sites(sites);
      if (!level.transformers.empty()) {
        level.transformers[j].add_sites(sites);
      }
    }
    if (level.sampler) {
      sites.push_back(level.sampler->site());
    }
  };
  add_linear(time1_);
  add_linear(time2_);
  if (add1_) {
    add_linear(*add1_);
    add_linear(*add2_);
  }
  sites.push_back(conv_in_.site());
  std::ranges::for_each(down_, add_level);
  middle1_->add_sites(sites);
  middle_->add_sites(sites);
  middle2_->add_sites(sites);
  std::ranges::for_each(up_, add_level);
  sites.push_back(conv_out_.site());
  return sites;
}

std::vector<nn::ParameterSlot> UNet::parameter_slots() {
  std::vector<nn::ParameterSlot> slots;
  const auto add_level = [&](Level& level) {
    for (std::size_t j = 0; j < level.resnets.size(); ++j) {
      level.resnets[j].add_slots(slots);
      if (!level.transformers.empty()) {
        level.transformers[j].add_slots(slots);
      }
    }
    if (level.sampler) {
      add_convolution_slots(*level.sampler, slots);
    }
  };
  time1_.add_slots(slots);
  time2_.add_slots(slots);
  if (add1_) {
    add1_->add_slots(slots);
    add2_->add_slots(slots);
  }
  add_convolution_slots(conv_in_, slots);
  std::ranges::for_each(down_, add_level);
  middle1_->add_slots(slots);
  middle_->add_slots(slots);
  middle2_->add_slots(slots);
  std::ranges::for_each(up_, add_level);
  add_norm_slots(norm_, slots);
  add_convolution_slots(conv_out_, slots);
  return slots;
}

}  // namespace lorascale::models::diffusion
