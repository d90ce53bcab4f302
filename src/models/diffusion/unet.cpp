#include "models/diffusion/unet.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/upsample_nearest2d.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "models/diffusion/parts.hpp"

namespace lorascale::models::diffusion {
at::Tensor time_embedding(const at::Tensor& t, std::int64_t width) {
  const auto half = width / 2;
  const at::Tensor frequencies = at::exp(at::arange(half, t.options().dtype(at::kDouble)) *
                                         (-std::log(10000.0) / static_cast<double>(half)))
                                     .to(at::kFloat);
  const at::Tensor angles = t.to(at::kFloat).unsqueeze(1) * frequencies;
  return at::cat({angles.cos(), angles.sin()}, 1);
}

UNet::UNet(const UNetConfig& config, const at::TensorOptions& options) : config_(config) {
  const auto first = config.levels.front().channels, time = config.time_width();
  conv_in_ = convolution("conv_in", config.in_channels, first, 3, 1, options);
  time1_ = linear_group({{"time_embedding.linear_1", time}}, first, /*bias=*/true, options);
  time2_ = linear_group({{"time_embedding.linear_2", time}}, time, /*bias=*/true, options);
  if (config.addition > 0) {
    add1_ = linear_group({{"add_embedding.linear_1", time}}, config.addition, true, options);
    add2_ = linear_group({{"add_embedding.linear_2", time}}, time, true, options);
  }
  make_down(options);
  const auto& last = config.levels.back();
  const ResnetBlock::Shape shape{last.channels, last.channels, time, config.groups};
  middle1_.emplace("mid_block.resnets.0.", shape, options);
  middle_.emplace("mid_block.attentions.0.",
                  TransformerShape{last.channels, last.heads, config.context, config.middle_depth,
                                   config.groups},
                  options);
  middle2_.emplace("mid_block.resnets.1.", shape, options);
  make_up(options);
  norm_ = group_norm("conv_norm_out", first, config.groups, 1e-5, options);
  conv_out_ = convolution("conv_out", first, config.out_channels, 3, 1, options);
}

void UNet::add_layer(Level& made, const std::string& prefix, std::int64_t in,
                     const UNetConfig::Level& level, const at::TensorOptions& options) const {
  const auto number = std::to_string(made.resnets.size()) + ".";
  made.resnets.emplace_back(
      prefix + "resnets." + number,
      ResnetBlock::Shape{in, level.channels, config_.time_width(), config_.groups}, options);
  if (level.depth > 0) {
    made.transformers.emplace_back(
        prefix + "attentions." + number,
        TransformerShape{level.channels, level.heads, config_.context, level.depth, config_.groups},
        options);
  }
}

void UNet::make_down(const at::TensorOptions& options) {
  auto channels = config_.levels.front().channels;
  for (std::size_t i = 0; i < config_.levels.size(); ++i) {
    const auto prefix = "down_blocks." + std::to_string(i) + ".";
    auto& made = down_.emplace_back();
    for (std::int64_t j = 0; j < config_.layers_per_level; ++j) {
      add_layer(made, prefix, channels, config_.levels[i], options);
      channels = config_.levels[i].channels;
    }
    if (i + 1 < config_.levels.size()) {
      made.sampler = convolution(prefix + "downsamplers.0.conv", channels, channels, 3, 2, options);
    }
  }
}

void UNet::make_up(const at::TensorOptions& options) {
  // What was kept on the way down, from the last to the first: widths to be joined.
  std::vector<std::int64_t> kept = {config_.levels.front().channels};
  for (std::size_t i = 0; i < config_.levels.size(); ++i) {
    const auto times = config_.layers_per_level + (i + 1 < config_.levels.size() ? 1 : 0);
    kept.insert(kept.end(), static_cast<std::size_t>(times), config_.levels[i].channels);
  }
  auto channels = config_.levels.back().channels;
  for (std::size_t i = 0; i < config_.levels.size(); ++i) {
    const auto& level = config_.levels[config_.levels.size() - 1 - i];
    const auto prefix = "up_blocks." + std::to_string(i) + ".";
    auto& made = up_.emplace_back();
    for (std::int64_t j = 0; j <= config_.layers_per_level; ++j) {
      add_layer(made, prefix, channels + kept.back(), level, options);
      kept.pop_back();
      channels = level.channels;
    }
    if (i + 1 < config_.levels.size()) {
      made.sampler = convolution(prefix + "upsamplers.0.conv", channels, channels, 3, 1, options);
    }
  }
  LS_ASSERT(kept.empty());
}

at::Tensor UNet::embed_time(const at::Tensor& t, const at::Tensor& added,
                            const nn::SampleRows* rows, UNetSaved* saved) const {
  const at::Tensor input =
      time_embedding(t, config_.levels.front().channels).to(conv_in_.weight.scalar_type());
  const at::Tensor inner = time1_.forward(input, rows, saved ? &saved->time1 : nullptr);
  at::Tensor time = time2_.forward(at::silu(inner), rows, saved ? &saved->time2 : nullptr);
  if (add1_) {
    const at::Tensor more = add1_->forward(added, rows, saved ? &saved->add1 : nullptr);
    time.add_(add2_->forward(at::silu(more), rows, saved ? &saved->add2 : nullptr));
    if (saved != nullptr) {
      saved->added = added;
      saved->added_inner = more;
    }
  }
  if (saved != nullptr) {
    saved->time_input = input;
    saved->time_inner = inner;
    saved->time = time;
  }
  return at::silu(time);
}

at::Tensor UNet::run_layer(const Level& level, std::size_t j, at::Tensor x, const Beside& beside,
                           UNetSaved::Level* keep) {
  x = level.resnets[j].forward(x, beside.time, beside.rows, keep ? &keep->resnets[j] : nullptr);
  if (!level.transformers.empty()) {
    x = level.transformers[j].forward(x, beside.context, beside.rows,
                                      keep ? &keep->transformers[j] : nullptr);
  }
  return x;
}

at::Tensor UNet::run_middle(at::Tensor x, const Beside& beside, UNetSaved* saved) const {
  x = middle1_->forward(x, beside.time, beside.rows, saved ? &saved->middle1 : nullptr);
  x = middle_->forward(x, beside.context, beside.rows, saved ? &saved->middle : nullptr);
  return middle2_->forward(x, beside.time, beside.rows, saved ? &saved->middle2 : nullptr);
}

at::Tensor UNet::forward(const at::Tensor& latents, const at::Tensor& t, const at::Tensor& context,
                         const at::Tensor& added, const nn::SampleRows* rows,
                         UNetSaved* saved) const {
  const at::Tensor time = embed_time(t, added, rows, saved);
  const at::Tensor input =
      latents.to(conv_in_.weight.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor x = conv_in_.forward(input, rows, saved ? &saved->in : nullptr);
  if (saved != nullptr) {
    saved->latents = input;
    saved->down.resize(down_.size());
    saved->up.resize(up_.size());
  }
  std::vector<at::Tensor> kept = {x};
  const Beside beside{time, context, rows};
  const auto run = [&](const Level& level, std::size_t j, UNetSaved::Level* keep) {
    if (keep != nullptr) {
      keep->resnets.resize(level.resnets.size());
      keep->transformers.resize(level.transformers.size());
      if (recompute_) {
        keep->inputs.push_back(x);
      }
    }
    x = run_layer(level, j, x, beside, recompute_ ? nullptr : keep);
  };
  for (std::size_t i = 0; i < down_.size(); ++i) {
    auto* keep = saved ? &saved->down[i] : nullptr;
    for (std::size_t j = 0; j < down_[i].resnets.size(); ++j) {
      run(down_[i], j, keep);
      kept.push_back(x);
    }
    if (down_[i].sampler) {
      if (keep != nullptr) {
        keep->sampler_input = x;
      }
      x = down_[i].sampler->forward(x, rows, keep ? &keep->sampler : nullptr);
      kept.push_back(x);
    }
  }
  if (saved != nullptr && recompute_) {
    saved->middle_input = x;
  }
  x = run_middle(x, beside, recompute_ ? nullptr : saved);
  for (std::size_t i = 0; i < up_.size(); ++i) {
    auto* keep = saved ? &saved->up[i] : nullptr;
    for (std::size_t j = 0; j < up_[i].resnets.size(); ++j) {
      if (keep != nullptr) {
        keep->widths.push_back(x.size(1));
      }
      x = at::cat({x, kept.back()}, 1);
      kept.pop_back();
      run(up_[i], j, keep);
    }
    if (up_[i].sampler) {
      // To the sides of what is joined next: odd ones were halved upwards.
      if (keep != nullptr) {
        keep->before_sampler = x.sizes().vec();
      }
      x = at::upsample_nearest2d(x, kept.back().sizes().slice(2));
      if (keep != nullptr) {
        keep->sampler_input = x;
      }
      x = up_[i].sampler->forward(x, rows, keep ? &keep->sampler : nullptr);
    }
  }
  const at::Tensor last = at::silu(norm_.forward(x, saved ? &saved->norm : nullptr));
  return conv_out_.forward(last, rows, saved ? &saved->out : nullptr);
}

}  // namespace lorascale::models::diffusion
