#include "models/diffusion/vae.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/upsample_nearest2d_backward.h>

#include <algorithm>

#include "models/diffusion/maps.hpp"
#include "models/diffusion/parts.hpp"

namespace lorascale::models::diffusion {
namespace {

constexpr double kEps = 1e-6;

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

}  // namespace

VaeAttention::VaeAttention(const std::string& prefix, std::int64_t channels, std::int64_t groups,
                           const at::TensorOptions& options)
    : norm_(group_norm(prefix + "group_norm", channels, groups, kEps, options)),
      qkv_(linear_group(
          {{prefix + "to_q", channels}, {prefix + "to_k", channels}, {prefix + "to_v", channels}},
          channels, /*bias=*/true, options)),
      out_(linear_group({{prefix + "to_out.0", channels}}, channels, /*bias=*/true, options)) {}

at::Tensor VaeAttention::forward(const at::Tensor& x, const nn::SampleRows* rows,
                                 Saved* saved) const {
  const auto d = x.size(1);
  const at::Tensor tokens = to_tokens(norm_.forward(x, saved ? &saved->norm : nullptr));
  const at::Tensor joint = qkv_.forward(tokens, rows, saved ? &saved->qkv : nullptr);
  const auto positions = tokens.size(0) / x.size(0);
  const at::Tensor attended = nn::cross_attention(joint.narrow(1, 0, d), joint.narrow(1, d, 2 * d),
                                                  {x.size(0), positions, positions, 1, d},
                                                  saved ? &saved->attention : nullptr);
  const at::Tensor y = to_map(out_.forward(attended, rows, saved ? &saved->out : nullptr), x);
  if (saved != nullptr) {
    saved->attended = attended;
  }
  return y + x;
}

at::Tensor VaeAttention::backward(const at::Tensor& dy, const nn::SampleRows* rows, Saved& saved,
                                  bool need_dx) const {
  const auto d = dy.size(1);
  const at::Tensor dtokens = to_tokens(dy).contiguous();
  const at::Tensor dattended =
      out_.backward(dtokens, saved.attended, rows, saved.out, /*need_dx=*/true);
  const auto positions = dtokens.size(0) / dy.size(0);
  const at::Tensor dqkv = at::empty({dtokens.size(0), 3 * d}, dtokens.options());
  nn::cross_attention_backward(dattended, {dy.size(0), positions, positions, 1, d}, saved.attention,
                               dqkv.narrow(1, 0, d), dqkv.narrow(1, d, 2 * d));
  const bool need_normed = need_dx || norm_.trains();
  const at::Tensor dnormed =
      qkv_.backward(dqkv, to_tokens(norm_.apply(saved.norm)), rows, saved.qkv, need_normed);
  if (!need_normed) {
    return {};
  }
  const at::Tensor dx = norm_.backward(to_map(dnormed, dy), saved.norm, need_dx);
  return need_dx ? dx + dy : at::Tensor();
}

void VaeAttention::add_sites(std::vector<nn::Site>& sites) {
  for (auto* group : {&qkv_, &out_}) {
    const auto of_group = group->sites();
    sites.insert(sites.end(), of_group.begin(), of_group.end());
  }
}

void VaeAttention::add_slots(std::vector<nn::ParameterSlot>& slots) {
  add_norm_slots(norm_, slots);
  qkv_.add_slots(slots);
  out_.add_slots(slots);
}

at::Tensor VaeChain::forward(at::Tensor x, std::vector<PartSaved>* saved) const {
  for (const auto& part : parts) {
    PartSaved* keep = saved ? &saved->emplace_back() : nullptr;
    if (keep != nullptr) {
      keep->sizes = x.sizes().vec();
    }
    x = std::visit(Overloaded{[&](const VaeConvolution& each) {
                                if (each.before == VaeConvolution::Before::kDouble) {
                                  x = at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
                                } else if (each.before == VaeConvolution::Before::kPad) {
                                  x = at::constant_pad_nd(x, {0, 1, 0, 1});
                                }
                                if (keep != nullptr) {
                                  keep->input = x;
                                }
                                return each.conv.forward(x, nullptr, keep ? &keep->conv : nullptr);
                              },
                              [&](const ResnetBlock& each) {
                                return each.forward(x, {}, nullptr, keep ? &keep->resnet : nullptr);
                              },
                              [&](const VaeAttention& each) {
                                return each.forward(x, nullptr, keep ? &keep->attention : nullptr);
                              },
                              [&](const VaeNorm& each) {
                                return at::silu(each.norm.forward(x, keep ? &keep->norm : nullptr));
                              }},
                   part);
  }
  return x;
}

at::Tensor VaeChain::backward(at::Tensor grad, std::vector<PartSaved>& saved, bool need_dx) const {
  const std::size_t first = need_dx ? 0 : first_trained();
  for (std::size_t i = parts.size(); i-- > first;) {
    PartSaved& kept = saved[i];
    const bool needed = need_dx || i > first;
    at::Tensor no_time;
    grad = std::visit(
        Overloaded{
            [&](const VaeConvolution& each) {
              at::Tensor dx = each.conv.backward(grad, kept.input, nullptr, kept.conv, needed);
              if (needed && each.before == VaeConvolution::Before::kDouble) {
                dx = at::upsample_nearest2d_backward(dx, kept.input.sizes().slice(2), kept.sizes);
              } else if (needed && each.before == VaeConvolution::Before::kPad) {
                dx = dx.narrow(2, 0, kept.sizes[2]).narrow(3, 0, kept.sizes[3]);
              }
              return dx;
            },
            [&](const ResnetBlock& each) {
              return each.backward(grad, {}, nullptr, kept.resnet, needed, no_time);
            },
            [&](const VaeAttention& each) {
              return each.backward(grad, nullptr, kept.attention, needed);
            },
            [&](const VaeNorm& each) {
              const at::Tensor normed = each.norm.apply(kept.norm);
              return each.norm.backward(at::silu_backward(grad, normed), kept.norm, needed);
            }},
        parts[i]);
    kept = {};
  }
  return grad;
}

std::size_t VaeChain::first_trained() const {
  const auto trains = [](const Part& part) {
    return std::visit(Overloaded{[](const VaeConvolution& each) { return each.conv.trains(); },
                                 [](const VaeNorm& each) { return each.norm.trains(); },
                                 [](const auto& each) { return each.trains(); }},
                      part);
  };
  return static_cast<std::size_t>(std::ranges::find_if(parts, trains) - parts.begin());
}

void VaeChain::add_sites(std::vector<nn::Site>& sites) {
  for (auto& part : parts) {
    std::visit(Overloaded{[&](VaeConvolution& each) { sites.push_back(each.conv.site()); },
                          [](VaeNorm& /*each*/) {}, [&](auto& each) { each.add_sites(sites); }},
               part);
  }
}

void VaeChain::add_slots(std::vector<nn::ParameterSlot>& slots) {
  for (auto& part : parts) {
    std::visit(Overloaded{[&](VaeConvolution& each) { add_convolution_slots(each.conv, slots); },
                          [&](VaeNorm& each) { add_norm_slots(each.norm, slots); },
                          [&](auto& each) { each.add_slots(slots); }},
               part);
  }
}

Vae::Vae(const VaeConfig& config, const at::TensorOptions& options)
    : config_(config), dtype_(at::typeMetaToScalarType(options.dtype())) {
  using Before = VaeConvolution::Before;
  const auto conv = [&](VaeChain& chain, const std::string& name, std::int64_t in, std::int64_t out,
                        std::int64_t kernel, Before before = Before::kNothing) {
    const std::int64_t stride = before == Before::kPad ? 2 : 1;
    auto made = convolution(name, in, out, kernel, stride, options);
    if (before == Before::kPad) {
      made.geometry.padding = {0, 0};
    }
    chain.parts.emplace_back(VaeConvolution{std::move(made), before});
  };
  const auto resnet = [&](VaeChain& chain, const std::string& prefix, std::int64_t in,
                          std::int64_t out) {
    chain.parts.emplace_back(std::in_place_type<ResnetBlock>, prefix,
                             ResnetBlock::Shape{in, out, 0, config.groups, kEps}, options);
  };
  const auto middle = [&](VaeChain& chain, const std::string& prefix) {
    const auto d = config.channels.back();
    resnet(chain, prefix + "resnets.0.", d, d);
    chain.parts.emplace_back(std::in_place_type<VaeAttention>, prefix + "attentions.0.", d,
                             config.groups, options);
    resnet(chain, prefix + "resnets.1.", d, d);
  };
  const auto last_norm = [&](VaeChain& chain, const std::string& name, std::int64_t channels) {
    chain.parts.emplace_back(VaeNorm{group_norm(name, channels, config.groups, kEps, options)});
  };
  const auto levels = config.channels.size();
  const auto moments = 2 * config.latent_channels;

  auto channels = config.channels.front();
  conv(encoder_, "encoder.conv_in", config.in_channels, channels, 3);
  for (std::size_t i = 0; i < levels; ++i) {
    const auto prefix = "encoder.down_blocks." + std::to_string(i) + ".";
    for (std::int64_t j = 0; j < config.layers_per_level; ++j) {
      resnet(encoder_, prefix + "resnets." + std::to_string(j) + ".", channels, config.channels[i]);
      channels = config.channels[i];
    }
    if (i + 1 < levels) {
      conv(encoder_, prefix + "downsamplers.0.conv", channels, channels, 3, Before::kPad);
    }
  }
  middle(encoder_, "encoder.mid_block.");
  last_norm(encoder_, "encoder.conv_norm_out", channels);
  conv(encoder_, "encoder.conv_out", channels, moments, 3);
  conv(encoder_, "quant_conv", moments, moments, 1);

  conv(decoder_, "post_quant_conv", config.latent_channels, config.latent_channels, 1);
  conv(decoder_, "decoder.conv_in", config.latent_channels, channels, 3);
  middle(decoder_, "decoder.mid_block.");
  for (std::size_t i = 0; i < levels; ++i) {
    const auto prefix = "decoder.up_blocks." + std::to_string(i) + ".";
    const auto out = config.channels[levels - 1 - i];
    for (std::int64_t j = 0; j <= config.layers_per_level; ++j) {
      resnet(decoder_, prefix + "resnets." + std::to_string(j) + ".", channels, out);
      channels = out;
    }
    if (i + 1 < levels) {
      conv(decoder_, prefix + "upsamplers.0.conv", channels, channels, 3, Before::kDouble);
    }
  }
  last_norm(decoder_, "decoder.conv_norm_out", channels);
  conv(decoder_, "decoder.conv_out", channels, config.in_channels, 3);
}

std::vector<nn::ParameterSlot> Vae::parameter_slots() {
  std::vector<nn::ParameterSlot> slots;
  encoder_.add_slots(slots);
  decoder_.add_slots(slots);
  return slots;
}

}  // namespace lorascale::models::diffusion
