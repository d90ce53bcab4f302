// What a Stable Diffusion model is made of: a UNet, an autoencoder and one or two text encoders,
// with the noise that they were trained on. Read from the config.json files of a diffusers folder,
// or from the shapes in one file of all parts (LDM), which says no more of itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/model_reader.hpp"
#include "models/diffusion/clip_text.hpp"
#include "models/diffusion/noise_schedule.hpp"
#include "models/diffusion/sampler.hpp"
#include "models/diffusion/unet.hpp"
#include "models/diffusion/vae.hpp"

namespace lorascale::models::diffusion {

enum class Variant { kSd1, kSd2, kSdxl };
std::string variant_name(Variant variant);  // "stable-diffusion-1", ...

struct TextEncoderConfig {
  ClipTextConfig clip;
  // What the UNet sees where nothing else is asked for.
  ContextChoice context{};
};

struct PipelineConfig {
  Variant variant = Variant::kSd1;
  UNetConfig unet;
  VaeConfig vae;
  std::vector<TextEncoderConfig> texts;  // their contexts side by side are the UNet's
  NoiseScheduleSettings noise;
  // Steps of the schedule that samplers ask at, as the model's publisher has it.
  Spacing spacing = Spacing::kLeading;
  std::int64_t spacing_offset = 1;
  // An empty prompt is zeros, not the encoding of "" (SDXL).
  bool zeros_for_empty = false;
  // The file does not say what its UNet predicts; `noise.prediction` is a guess then.
  bool prediction_unknown = false;
};

// Whether `path` is a folder of diffusers' or a file of all parts: reads no more than names and the
// header.
bool is_pipeline(const std::filesystem::path& path);
// Whether it is a folder of diffusers' (else one file).
// What a path is instead of a pipeline, where one may be mistaken for it, with the remedy; empty
// where it is nothing of the kind.
std::string mistaken_for_pipeline(const std::filesystem::path& path);
bool is_pipeline_folder(const std::filesystem::path& path);

// Error(kBadInput) that names what is not supported: inpainting, refiner, another family.
PipelineConfig read_pipeline_config(const std::filesystem::path& folder);
PipelineConfig pipeline_config_of(const io::ModelReader& file);

// vae/config.json of a folder, which may be another one than the pipeline's.
VaeConfig read_vae_config(const std::filesystem::path& file);
// Of an autoencoder whose tensors' names begin with `prefix` there.
VaeConfig vae_config_of(const io::ModelReader& file, const std::string& prefix);

// Error(kBadInput) where widths of the parts do not fit together; `where` opens the message.
void check_pipeline(const PipelineConfig& config, const std::string& where);

}  // namespace lorascale::models::diffusion
