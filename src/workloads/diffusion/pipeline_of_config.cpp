#include "workloads/diffusion/pipeline_of_config.hpp"

#include <fmt/format.h>

#include <utility>

#include "base/error.hpp"
#include "config/trainer_picture_keys.hpp"
#include "models/diffusion/autoencoder_model.hpp"
#include "workloads/diffusion/diffusion.hpp"

namespace lorascale::workloads::diffusion {

using models::diffusion::Prediction;

models::diffusion::PipelineSource source_of(const config::ModelSection& model) {
  models::diffusion::PipelineSource source{model.path, {}};
  if (model.vae) {
    source.vae = *model.vae;
  }
  return source;
}

models::diffusion::DiffusionSettings settings_of(const config::RunConfig& config) {
  const auto& loss = config.loss;
  models::diffusion::DiffusionSettings settings;
  settings.weighting = {loss.min_snr_gamma, loss.debiased, loss.scale_v_like_noise};
  settings.noise_offset = loss.noise_offset;
  settings.noise_offset_adaptive = loss.noise_offset_adaptive;
  settings.input_perturbation = loss.input_perturbation;
  settings.zero_terminal_snr = loss.zero_terminal_snr;
  settings.clip_skip = config.model.clip_skip;
  if (config.model.prediction) {
    settings.prediction =
        *config.model.prediction == "v" ? Prediction::kVelocity : Prediction::kEpsilon;
  }
  return settings;
}

std::unique_ptr<models::diffusion::PipelineModel> model_of(
    const config::RunConfig& config, std::unique_ptr<models::diffusion::Pipeline> pipeline) {
  if (config.model.part == config::ModelPart::kAutoencoder) {
    return std::make_unique<models::diffusion::AutoencoderModel>(std::move(pipeline),
                                                                 config.loss.kl);
  }
  pipeline->unet().set_recompute(config.model.recompute);
  return std::make_unique<models::diffusion::DiffusionModel>(std::move(pipeline),
                                                             settings_of(config));
}

data::CaptionRows rows_of(const config::RunConfig& config,
                          const models::diffusion::PipelineConfig& pipeline) {
  constexpr std::int64_t kWords = 75;  // of CLIP's 77 positions
  const auto most = config.data.caption.max_tokens;
  if (most % kWords != 0) {
    throw_bad_config(fmt::format("data.caption.max_tokens is {}; 75, 150 and 225 can be", most));
  }
  return {std::ssize(pipeline.texts), most / kWords, pipeline.texts.front().clip.positions};
}

data::PictureSettings pictures_of(const config::RunConfig& config,
                                  const models::diffusion::PipelineConfig& pipeline,
                                  bool training) {
  const auto& caption = config.data.caption;
  data::PictureSettings settings;
  settings.rows = rows_of(config, pipeline);
  settings.factor = pipeline.vae.factor();
  settings.use_mask = config.data.masked;
  settings.prior_weight = config.loss.prior_weight;
  settings.use_repeats = training;
  if (training) {
    settings.caption.shuffle = caption.shuffle;
    settings.caption.keep = caption.keep;
    settings.caption.dropout = caption.dropout;
    settings.caption.tag_dropout = caption.tag_dropout;
    settings.flip = config.data.augment.flip;
    settings.random_crop = config.data.augment.crop;
    settings.color_jitter = config.data.augment.color_jitter;
  }
  return settings;
}

void take_defaults(const std::set<std::string>& given, config::RunConfig& config) {
  if (config.adapter.type != "token" && !given.contains("adapter.targets")) {
    config.adapter.targets =
        config.adapter.type == "ia3"
            ? std::vector<std::string>{"to_k", "to_v", "ff.net.2", "k_proj", "v_proj", "fc2"}
            : config::picture_targets();
  }
  // A word of its own has no half.
  if ((config.adapter.type == "lora" || config.adapter.type == "ia3") &&
      !given.contains("sample.strengths")) {
    config.sample.strengths = {0, 0.4, 0.8, 1.2};
  }
}

}  // namespace lorascale::workloads::diffusion
