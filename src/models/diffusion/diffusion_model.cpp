#include "models/diffusion/diffusion_model.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "models/diffusion/draws.hpp"
#include "models/diffusion/leaf_tensors.hpp"

namespace lorascale::models::diffusion {
namespace {

constexpr std::int64_t kQuarters = 4;
constexpr std::int64_t kSizeWidth = 256;  // of each of SDXL's six sizes

NoiseScheduleSettings noise_of(const PipelineConfig& config, const DiffusionSettings& settings) {
  auto noise = config.noise;
  if (!settings.prediction && config.prediction_unknown) {
    throw_bad_config(
        "model.path: an SD 2 model in one file does not say what it predicts; set "
        "model.prediction to v (2.0 and 2.1 of 768 pixels) or epsilon (2.0 and 2.1 base)");
  }
  noise.prediction = settings.prediction.value_or(noise.prediction);
  noise.zero_terminal_snr = noise.zero_terminal_snr || settings.zero_terminal_snr;
  if (noise.zero_terminal_snr && noise.prediction == Prediction::kEpsilon) {
    throw_bad_config(
        "loss.zero_terminal_snr needs a model that predicts v: at the last step, noise alone, "
        "epsilon says nothing of the picture");
  }
  return noise;
}

}  // namespace

struct DiffusionModel::Batch {
  std::vector<std::int64_t> ids;  // of the samples in the data set
  std::vector<std::int64_t> times;
  at::Tensor seen;    // noisy latents, fp32
  at::Tensor target;  // fp32
  at::Tensor mask;    // [samples, 1, height, width]; undefined: everything counts
  std::vector<double> weights;
};

// fp64 on the device.
struct DiffusionModel::Sums {
  std::vector<at::Tensor> losses;
  at::Tensor quarters;  // [4, 2]
};

DiffusionModel::DiffusionModel(std::unique_ptr<Pipeline> pipeline,
                               const DiffusionSettings& settings)
    : PipelineModel(std::move(pipeline)),
      settings_(settings),
      schedule_(noise_of(this->pipeline().config(), settings)),
      contexts_(this->pipeline(), settings.clip_skip) {
  for (const auto& text : this->pipeline().config().texts) {
    if (settings.clip_skip > text.clip.layers) {
      throw_bad_config(
          fmt::format("model.clip_skip {} leaves nothing of a text encoder of {} "
                      "layers",
                      settings.clip_skip, text.clip.layers));
    }
  }
}

std::vector<std::string> DiffusionModel::parts_without_site() const {
  return {"unet.conv_in", "unet.conv_out", "unet.time_embedding.linear_1",
          "unet.time_embedding.linear_2"};
}

std::vector<std::string> DiffusionModel::measure_names() const {
  return {"loss_t1", "loss_t2", "loss_t3", "loss_t4"};
}

at::Tensor DiffusionModel::encoded(const data::PictureGroup& group, std::int64_t i) const {
  const auto& vae = pipeline().vae();
  return vae.encode(pixels_of(group).narrow(0, i, 1).to(device(), vae.dtype()), nullptr)
      .to(at::kFloat)
      .contiguous();
}

at::Tensor DiffusionModel::moments(const data::PictureLeaf& leaf,
                                   const data::PictureGroup& group) const {
  const auto& config = pipeline().vae().config();
  const std::vector<std::int64_t> shape = {
      1, 2 * config.latent_channels, group.height / config.factor(), group.width / config.factor()};
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device());
  std::vector<at::Tensor> all;
  for (std::int64_t i = 0; i < std::ssize(group.samples); ++i) {
    const auto place = group.samples[static_cast<std::size_t>(i)];
    const auto& view = leaf.views[static_cast<std::size_t>(place)];
    const auto compute = [&] { return encoded(group, i); };
    all.push_back(view.empty() ? compute() : kept_moments_.get(view, shape, options, compute));
  }
  return at::cat(all);
}

std::int64_t DiffusionModel::fill_moments(const data::PictureLeaf& leaf) const {
  std::int64_t made = 0;
  for (const auto& group : leaf.groups) {
    for (std::int64_t i = 0; i < std::ssize(group.samples); ++i) {
      const auto place = group.samples[static_cast<std::size_t>(i)];
      made += kept_moments_.fill(leaf.views[static_cast<std::size_t>(place)],
                                 [&] { return encoded(group, i); })
                  ? 1
                  : 0;
    }
  }
  return made;
}

std::int64_t DiffusionModel::fill_context(const std::vector<std::int32_t>& ids,
                                          const std::vector<std::int64_t>& shape) const {
  return contexts_.fill(borrowed(ids, shape, at::kInt));
}

at::Tensor DiffusionModel::added(const at::Tensor& pooled, const at::Tensor& sizes) const {
  if (pipeline().config().unet.addition == 0) {
    return {};
  }
  const at::Tensor embedded = time_embedding(sizes.reshape({-1}), kSizeWidth)
                                  .view({sizes.size(0), 6 * kSizeWidth})
                                  .to(pooled.scalar_type());
  return at::cat({pooled, embedded}, 1);
}

DiffusionModel::Batch DiffusionModel::batch_of(const data::PictureLeaf& leaf,
                                               const data::PictureGroup& group, std::int64_t part,
                                               std::int64_t parts) const {
  Batch batch;
  std::vector<double> signal, noise_level;
  for (const auto place : group.samples) {
    const auto at = static_cast<std::size_t>(place);
    const auto id = leaf.sample_ids[at];
    const auto t = draw_time(leaf.key, id, schedule_.steps(), part, parts);
    batch.ids.push_back(id);
    batch.times.push_back(t);
    signal.push_back(schedule_.signal(t));
    noise_level.push_back(schedule_.noise(t));
    batch.weights.push_back(leaf.weights[at]);
  }
  const at::Tensor both = moments(leaf, group);
  const auto channels = both.size(1) / 2, height = both.size(2), width = both.size(3);
  const auto options = both.options();
  const auto round = static_cast<std::uint32_t>(part);
  const auto normal = [&](Draw draw, const std::vector<std::int64_t>& shape) {
    return draw_normal(leaf.key, batch.ids, draw, shape, round).to(device());
  };
  const std::vector<std::int64_t> shape = {channels, height, width};
  const at::Tensor deviation = (both.narrow(1, channels, channels).clamp(-30, 20) * 0.5).exp_();
  const at::Tensor latents =
      (both.narrow(1, 0, channels) + deviation * normal(Draw::kLatents, shape)) *
      pipeline().config().vae.scaling_factor;
  at::Tensor noise = normal(Draw::kNoise, shape);
  if (settings_.noise_offset > 0 || settings_.noise_offset_adaptive != 0) {
    at::Tensor offset = at::empty({std::ssize(batch.ids), channels, 1, 1}, options);
    offset.fill_(settings_.noise_offset);
    if (settings_.noise_offset_adaptive != 0) {
      offset.add_(latents.mean({2, 3}, /*keepdim=*/true).abs() * settings_.noise_offset_adaptive)
          .clamp_min_(0);
    }
    noise = noise + offset * normal(Draw::kOffset, {channels, 1, 1});
  }
  const at::Tensor a = column(signal, options), s = column(noise_level, options);
  at::Tensor seen_noise = noise;
  if (settings_.input_perturbation > 0) {
    seen_noise = noise + settings_.input_perturbation * normal(Draw::kPerturbation, shape);
  }
  batch.seen = a * latents + s * seen_noise;
  batch.target =
      schedule_.settings().prediction == Prediction::kEpsilon ? noise : a * noise - s * latents;
  if (const at::Tensor full = mask_of(group); full.defined()) {
    const auto factor = pipeline().config().vae.factor();
    batch.mask =
        full.view({full.size(0), 1, height, factor, width, factor}).mean({3, 5}).to(device());
  }
  return batch;
}

at::Tensor DiffusionModel::loss(const Batch& batch, const at::Tensor& prediction,
                                Sums& sums) const {
  const at::Tensor error = prediction.to(at::kFloat) - batch.target;
  const at::Tensor counted = batch.mask.defined() ? error * batch.mask : error;
  const at::Tensor each = (error * counted).mean({1, 2, 3}, false, at::kDouble);
  std::vector<double> weights;
  std::vector<std::int64_t> quarters;
  for (std::size_t i = 0; i < batch.times.size(); ++i) {
    const auto t = batch.times[i];
    weights.push_back(batch.weights[i] * schedule_.loss_weight(t, settings_.weighting));
    quarters.push_back(t * kQuarters / schedule_.steps());
  }
  const at::Tensor weight = column(weights, error.options());
  sums.losses.push_back((each * weight.flatten()).sum());
  for (std::size_t i = 0; i < quarters.size(); ++i) {
    at::Tensor quarter = sums.quarters[quarters[i]];
    quarter[0].add_(each[static_cast<std::int64_t>(i)]);
    quarter[1].add_(1);
  }
  const auto values = static_cast<double>(error[0].numel());
  return counted * (weight * (2.0 / values));
}

void DiffusionModel::run_group(const data::PictureLeaf& leaf, const data::PictureGroup& group,
                               bool train, std::int64_t part, std::int64_t parts, Sums& sums) {
  const auto batch = batch_of(leaf, group, part, parts);
  const auto samples = std::ssize(group.samples);
  std::optional<nn::SampleRows> rows;
  at::Tensor t = at::empty({samples}, at::kFloat);
  at::Tensor places = at::empty({samples}, at::kLong);
  at::Tensor sizes = at::empty({samples, 6}, at::kFloat);
  if (train) {
    rows = nn::SampleRows{leaf.key, batch.ids, {}};
  }
  for (std::int64_t i = 0; i <= samples; ++i) {
    if (rows) {
      rows->offsets.push_back(static_cast<std::int32_t>(i));
    }
  }
  for (std::int64_t i = 0; i < samples; ++i) {
    const auto at = group.samples[static_cast<std::size_t>(i)];
    t.data_ptr<float>()[i] = static_cast<float>(batch.times[static_cast<std::size_t>(i)]);
    places.data_ptr<std::int64_t>()[i] = at;
    std::ranges::copy(leaf.sizes[static_cast<std::size_t>(at)], sizes.data_ptr<float>() + 6 * i);
  }
  const auto* draws = rows ? &*rows : nullptr;
  const at::Tensor ids =
      borrowed(leaf.ids,
               {std::ssize(leaf.sample_ids), leaf.encoders, leaf.text_rows, leaf.positions},
               at::kInt)
          .index_select(0, places);
  const bool text_trains = train && contexts_.trains();
  ContextSaved text_saved;
  const auto context = contexts_.forward(ids, draws, text_trains ? &text_saved : nullptr);
  const auto& unet = pipeline().unet();
  UNetSaved saved;
  const at::Tensor prediction =
      unet.forward(batch.seen, t.to(device()), context.words,
                   added(context.pooled, sizes.to(device())), draws, train ? &saved : nullptr);
  const at::Tensor grad = loss(batch, prediction, sums);
  if (!train) {
    return;
  }
  at::Tensor dwords, dadded;
  if (text_trains) {
    dwords = at::zeros_like(context.words);
  }
  const bool need_pooled = text_trains && context.pooled.defined();
  unet.backward(grad.to(prediction.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast),
                context.words, draws, saved, dwords, need_pooled ? &dadded : nullptr);
  if (text_trains) {
    contexts_.backward(dwords,
                       need_pooled ? dadded.narrow(1, 0, context.pooled.size(1)) : at::Tensor(),
                       text_saved);
  }
}

LeafResult DiffusionModel::result_of(const data::PictureLeaf& leaf, const Sums& sums,
                                     std::int64_t parts) const {
  LeafResult result;
  const auto options = at::TensorOptions().dtype(at::kDouble).device(device());
  result.loss_sum = sums.losses.empty() ? at::zeros({}, options)
                                        : at::stack(sums.losses).sum() / static_cast<double>(parts);
  result.targets = leaf.targets ? std::ssize(leaf.sample_ids) : 0;
  result.measures = sums.quarters;
  return result;
}

LeafResult DiffusionModel::accumulate(const data::Leaf& leaf) {
  const auto& pictures = pictures_of(leaf);
  Sums sums{{}, at::zeros({kQuarters, 2}, at::TensorOptions().dtype(at::kDouble).device(device()))};
  for (const auto& group : pictures.groups) {
    if (pictures.targets) {
      run_group(pictures, group, /*train=*/true, 0, 1, sums);
    }
  }
  return result_of(pictures, sums, 1);
}

LeafResult DiffusionModel::evaluate(const data::Leaf& leaf) {
  const auto& pictures = pictures_of(leaf);
  Sums sums{{}, at::zeros({kQuarters, 2}, at::TensorOptions().dtype(at::kDouble).device(device()))};
  for (const auto& group : pictures.groups) {
    for (std::int64_t part = 0; part < kQuarters && pictures.targets; ++part) {
      run_group(pictures, group, /*train=*/false, part, kQuarters, sums);
    }
  }
  return result_of(pictures, sums, kQuarters);
}

}  // namespace lorascale::models::diffusion
