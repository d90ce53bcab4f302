#include "models/diffusion/autoencoder_model.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/avg_pool2d_backward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "models/diffusion/draws.hpp"
#include "models/diffusion/leaf_tensors.hpp"

namespace lorascale::models::diffusion {
namespace {

// Of the log-variance, beyond which its exponential says nothing more (as diffusers has it).
constexpr double kLeastLog = -30, kMostLog = 20;
constexpr double kMostSquare = 4;       // of a difference of pixels in [-1, 1]
constexpr double kLeastSquare = 1e-12;  // of kMostSquare: 120 dB

double values_of_sample(const at::Tensor& x) {
  return static_cast<double>(x[0].numel());
}

at::Tensor mean_of_samples(const at::Tensor& x) {
  return x.mean({1, 2, 3}, /*keepdim=*/false, at::kDouble);
}

// Mean of |x| of each sample; `grad` becomes its gradient.
at::Tensor mean_distance(const at::Tensor& x, at::Tensor& grad) {
  grad = at::sign(x).mul_(1 / values_of_sample(x));
  return mean_of_samples(x.abs());
}

// The terms of what differs, and their gradient by it.
at::Tensor distances(const at::Tensor& d, at::Tensor& grad) {
  at::Tensor of_term;
  at::Tensor sum = mean_distance(d, grad);
  for (const std::int64_t side : {2, 3}) {
    const auto last = d.size(side) - 1;
    if (last == 0) {
      continue;
    }
    sum += mean_distance(d.narrow(side, 1, last) - d.narrow(side, 0, last), of_term);
    grad.narrow(side, 1, last).add_(of_term);
    grad.narrow(side, 0, last).sub_(of_term);
  }
  if (std::min(d.size(2), d.size(3)) >= 2) {
    sum += mean_distance(at::avg_pool2d(d, {2, 2}), of_term);
    grad.add_(at::avg_pool2d_backward(of_term, d, {2, 2}, {2, 2}, {0, 0}, /*ceil_mode=*/false,
                                      /*count_include_pad=*/false, std::nullopt));
  }
  return sum;
}

double conv(std::int64_t in, std::int64_t out, std::int64_t kernel) {
  return static_cast<double>(in * out * kernel * kernel);
}

// Products of one pixel of the picture, and values kept, of both halves; attention aside, whose
// map is small.
struct PixelCost {
  double products = 0, kept = 0;
};

PixelCost cost_of(const VaeConfig& config) {
  PixelCost cost;
  const auto block = [&cost](std::int64_t in, std::int64_t out, double area) {
    cost.products +=
        area * (conv(in, out, 3) + conv(out, out, 3) + (in == out ? 0 : conv(in, out, 1)));
    cost.kept += area * static_cast<double>(in + out);
  };
  double area = 1;
  auto before = config.channels.front();
  cost.products += 2 * conv(config.in_channels, before, 3);
  for (std::size_t i = 0; i < config.channels.size(); ++i) {
    const auto channels = config.channels[i];
    for (std::int64_t j = 0; j < config.layers_per_level; ++j) {
      block(j == 0 ? before : channels, channels, area);
    }
    // On the way back, from the coarser level.
    const auto coarser =
        i + 1 < config.channels.size() ? config.channels[i + 1] : config.channels.back();
    for (std::int64_t j = 0; j <= config.layers_per_level; ++j) {
      block(j == 0 ? coarser : channels, channels, area);
    }
    before = channels;
    if (i + 1 < config.channels.size()) {
      cost.products += area * (conv(channels, channels, 3) / 4 + conv(coarser, coarser, 3));
      cost.kept += area * static_cast<double>(channels + coarser);
      area /= 4;
    }
  }
  for (int i = 0; i < 4; ++i) {  // in the middle of both halves
    block(before, before, area);
  }
  cost.products += area * 8 * conv(before, before, 1);
  cost.kept += area * 12 * static_cast<double>(before);
  return cost;
}

double pixels_of_groups(const data::Leaf& leaf) {
  double pixels = 0;
  for (const auto& group : pictures_of(leaf).groups) {
    pixels += static_cast<double>(std::ssize(group.samples) * group.height * group.width);
  }
  return pixels;
}

}  // namespace

LeafResult AutoencoderModel::run(const data::Leaf& leaf, bool train) {
  const auto& pictures = pictures_of(leaf);
  const auto options = at::TensorOptions().dtype(at::kDouble).device(device());
  LeafResult result;
  result.loss_sum = at::zeros({}, options);
  result.measures = at::zeros({2, 2}, options);
  if (pictures.targets) {
    result.targets = std::ssize(pictures.sample_ids);
    for (const auto& group : pictures.groups) {
      run_group(pictures, group, train, result);
    }
  }
  return result;
}

void AutoencoderModel::run_group(const data::PictureLeaf& leaf, const data::PictureGroup& group,
                                 bool train, LeafResult& result) const {
  std::vector<std::int64_t> ids;
  std::vector<double> weights;
  for (const auto place : group.samples) {
    ids.push_back(leaf.sample_ids[static_cast<std::size_t>(place)]);
    weights.push_back(leaf.weights[static_cast<std::size_t>(place)]);
  }
  const auto& vae = pipeline().vae();
  std::vector<VaeChain::PartSaved> encoding, decoding;
  const at::Tensor pixels = pixels_of(group).to(device());
  const at::Tensor moments =
      vae.encode(pixels.to(vae.dtype()), train ? &encoding : nullptr).to(at::kFloat);
  const auto channels = moments.size(1) / 2;
  const at::Tensor mean = moments.narrow(1, 0, channels);
  const at::Tensor unbounded = moments.narrow(1, channels, channels);
  const at::Tensor log_variance = unbounded.clamp(kLeastLog, kMostLog);
  const at::Tensor variance = log_variance.exp();
  at::Tensor latents = mean, noise;
  if (train) {
    noise = draw_normal(leaf.key, ids, Draw::kLatents, {channels, moments.size(2), moments.size(3)})
                .to(device())
                .mul_((log_variance * 0.5).exp_());
    latents = mean + noise;
  }
  const at::Tensor error =
      vae.decode(latents.to(vae.dtype()), train ? &decoding : nullptr).to(at::kFloat) - pixels;
  at::Tensor mask = mask_of(group);
  if (mask.defined()) {
    mask = mask.to(device());
  }
  at::Tensor dmade;
  const at::Tensor kl = mean_of_samples((mean * mean + variance - 1 - log_variance) * 0.5);
  const at::Tensor losses = distances(mask.defined() ? error * mask : error, dmade) + kl * kl_;
  const at::Tensor weight = column(weights, error.options());
  result.loss_sum.add_((losses * weight.flatten()).sum());
  const at::Tensor psnr =
      mean_of_samples(error.square()).div_(kMostSquare).clamp_min_(kLeastSquare).log10_() * -10;
  result.measures[0][0].add_(psnr.sum());
  result.measures[1][0].add_(kl.sum());
  result.measures.select(1, 1).add_(static_cast<double>(std::ssize(ids)));
  if (!train) {
    return;
  }
  dmade.mul_(weight);
  if (mask.defined()) {
    dmade.mul_(mask);
  }
  const auto of_vae = [&vae](const at::Tensor& grad) {
    return grad.to(vae.dtype()).contiguous(at::MemoryFormat::ChannelsLast);
  };
  const at::Tensor dlatents =
      vae.decoder().backward(of_vae(dmade), decoding, /*need_dx=*/true).to(at::kFloat);
  const at::Tensor of_kl = weight * (kl_ / values_of_sample(mean));
  const at::Tensor dlog =
      (dlatents * noise + of_kl * (variance - 1)) * 0.5 * unbounded.eq(log_variance).to(at::kFloat);
  vae.encoder().backward(of_vae(at::cat({dlatents + of_kl * mean, dlog}, 1)), encoding,
                         /*need_dx=*/false);
}

double AutoencoderModel::forward_operations(const data::Leaf& leaf) const {
  return 2 * pixels_of_groups(leaf) * cost_of(pipeline().config().vae).products;
}

ActivationBytes AutoencoderModel::activation_bytes(const data::Leaf& leaf) const {
  double most = 0;  // groups follow one another
  for (const auto& group : pictures_of(leaf).groups) {
    most =
        std::max(most, static_cast<double>(std::ssize(group.samples) * group.height * group.width));
  }
  return {
      static_cast<double>(c10::elementSize(dtype())) * most * cost_of(pipeline().config().vae).kept,
      0};
}

}  // namespace lorascale::models::diffusion
