// What one file of all parts (LDM) is, from the names and shapes of its tensors.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "base/error.hpp"
#include "io/safetensors.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"
#include "models/diffusion/pipeline_config.hpp"

namespace lorascale::models::diffusion {
namespace {

constexpr const char* kLdmUnet = "model.diffusion_model.";
constexpr const char* kLdmVae = "first_stage_model.";
constexpr const char* kLdmClip = "cond_stage_model.transformer.";
constexpr const char* kLdmOpenClip = "cond_stage_model.model.";
constexpr const char* kXlClip = "conditioner.embedders.0.transformer.";
constexpr const char* kXlOpenClip = "conditioner.embedders.1.model.";
constexpr std::int64_t kMost = 4096;  // of levels, blocks, layers: a bound for hostile names

class Shapes {
 public:
  Shapes(const io::ModelReader& file, std::string prefix)
      : file_(file), prefix_(std::move(prefix)) {}

  [[nodiscard]] bool has(const std::string& name) const {
    return file_.find(prefix_ + name) != nullptr;
  }
  // A side of a tensor that must be there.
  [[nodiscard]] std::int64_t size(const std::string& name, std::size_t dimension) const {
    const auto& shape = file_.at(prefix_ + name).shape;
    if (dimension >= shape.size() || shape[dimension] <= 0) {
      throw_bad_input(
          fmt::format("{}: tensor '{}' has {} dimensions; the file is no Stable "
                      "Diffusion model that is known",
                      file_.path().string(), prefix_ + name, shape.size()));
    }
    return shape[dimension];
  }
  // How many of "START<i>END", i from 0 on, there are.
  [[nodiscard]] std::int64_t count(const std::string& start, const std::string& end) const {
    std::int64_t found = 0;
    while (found < kMost && has(start + std::to_string(found) + end)) {
      ++found;
    }
    return found;
  }

 private:
  const io::ModelReader& file_;
  std::string prefix_;
};

[[noreturn]] void refuse(const io::ModelReader& file, const std::string& what) {
  throw_bad_input(file.path().string() + ": " + what);
}

// Of SD 1 there are 8 heads on every level; SD 2 and SDXL have them 64 wide.
std::int64_t heads_of(Variant variant, std::int64_t channels) {
  return variant == Variant::kSd1 ? 8 : std::max<std::int64_t>(1, channels / 64);
}

std::int64_t depth_of(const Shapes& shapes, const std::string& block) {
  return shapes.count(block + ".1.transformer_blocks.", ".norm1.weight");
}

UNetConfig unet_of(const io::ModelReader& file, Variant variant) {
  const Shapes shapes(file, kLdmUnet);
  UNetConfig config;
  config.in_channels = shapes.size("input_blocks.0.0.weight", 1);
  config.out_channels = shapes.size("out.2.weight", 0);
  config.layers_per_level = 0;
  std::int64_t layers = 0;  // of the level so far
  for (std::int64_t i = 1; i < kMost; ++i) {
    const auto block = "input_blocks." + std::to_string(i);
    if (shapes.has(block + ".0.op.weight")) {
      layers = 0;
      continue;
    }
    if (!shapes.has(block + ".0.in_layers.2.weight")) {
      break;
    }
    const auto channels = shapes.size(block + ".0.in_layers.2.weight", 0);
    const auto depth = depth_of(shapes, block);
    if (layers == 0) {
      config.levels.push_back({channels, depth, heads_of(variant, channels)});
    }
    if (depth > 0) {
      config.context = shapes.size(block + ".1.transformer_blocks.0.attn2.to_k.weight", 1);
    }
    ++layers;
    config.layers_per_level = std::max(config.layers_per_level, layers);
  }
  if (config.levels.empty()) {
    refuse(file, "no residual block of a UNet is in it; it is no Stable Diffusion model");
  }
  config.middle_depth = depth_of(shapes, "middle_block");
  if (shapes.has("label_emb.0.0.weight")) {
    config.addition = shapes.size("label_emb.0.0.weight", 1);
  }
  return config;
}

ClipTextConfig clip_of(const io::ModelReader& file, const std::string& prefix) {
  const Shapes bare(file, prefix);
  const bool nested = bare.has("text_model.embeddings.token_embedding.weight");
  const Shapes shapes(file, nested ? prefix + "text_model." : prefix);
  ClipTextConfig config;
  config.vocabulary = shapes.size("embeddings.token_embedding.weight", 0);
  config.hidden = shapes.size("embeddings.token_embedding.weight", 1);
  config.positions = shapes.size("embeddings.position_embedding.weight", 0);
  config.layers = shapes.count("encoder.layers.", ".layer_norm1.weight");
  config.intermediate = shapes.size("encoder.layers.0.mlp.fc1.weight", 0);
  config.heads = std::max<std::int64_t>(1, config.hidden / 64);
  config.end_token = config.vocabulary - 1;
  return config;
}

ClipTextConfig open_clip_of(const io::ModelReader& file, const std::string& prefix) {
  const Shapes shapes(file, prefix);
  ClipTextConfig config;
  config.vocabulary = shapes.size("token_embedding.weight", 0);
  config.hidden = shapes.size("token_embedding.weight", 1);
  config.positions = shapes.size("positional_embedding", 0);
  config.layers = shapes.count("transformer.resblocks.", ".ln_1.weight");
  config.intermediate = shapes.size("transformer.resblocks.0.mlp.c_fc.weight", 0);
  config.heads = std::max<std::int64_t>(1, config.hidden / 64);
  config.activation = nn::Activation::kGelu;
  config.end_token = config.vocabulary - 1;
  return config;
}

Variant variant_of(const io::ModelReader& file) {
  const auto has = [&](const std::string& name) { return file.find(name) != nullptr; };
  const bool open_clip = has(std::string(kXlOpenClip) + "token_embedding.weight");
  if (has(std::string(kXlClip) + "text_model.embeddings.token_embedding.weight") && open_clip) {
    return Variant::kSdxl;
  }
  if (open_clip || has("conditioner.embedders.0.model.token_embedding.weight")) {
    refuse(file, "it is an SDXL refiner, which is not supported; take the base model");
  }
  if (has(std::string(kLdmOpenClip) + "token_embedding.weight")) {
    return Variant::kSd2;
  }
  for (const auto* nested : {"text_model.", ""}) {
    if (has(std::string(kLdmClip) + nested + "embeddings.token_embedding.weight")) {
      return Variant::kSd1;
    }
  }
  refuse(file,
         "no text encoder of SD 1, SD 2 or SDXL is in it; a whole model is needed (UNet, text "
         "encoder and autoencoder in one file), not a part of one or an adapter");
}

void set_texts(const io::ModelReader& file, PipelineConfig& config) {
  switch (config.variant) {
    case Variant::kSd1:
      config.texts.push_back({clip_of(file, kLdmClip), {}});
      return;
    case Variant::kSd2: {
      // The last layer is in the file and not in use.
      auto clip = open_clip_of(file, kLdmOpenClip);
      clip.layers = std::max<std::int64_t>(1, clip.layers - 1);
      config.texts.push_back({clip, {}});
      return;
    }
    case Variant::kSdxl: {
      auto second = open_clip_of(file, kXlOpenClip);
      second.projection = Shapes(file, kXlOpenClip).size("text_projection", 1);
      config.texts.push_back({clip_of(file, kXlClip), {2, /*final_norm=*/false}});
      config.texts.push_back({second, {2, /*final_norm=*/false}});
      config.zeros_for_empty = true;
    }
  }
}

}  // namespace

bool is_pipeline(const std::filesystem::path& path) {
  if (is_pipeline_folder(path)) {
    return true;
  }
  std::error_code unknown;
  if (path.extension() != ".safetensors" || !std::filesystem::is_regular_file(path, unknown)) {
    return false;
  }
  try {
    const io::SafetensorsFile file(path);
    return file.find(std::string(kLdmUnet) + "input_blocks.0.0.weight") != nullptr;
  } catch (const Error&) {
    return false;  // opening it for good says what is wrong
  }
}

std::string mistaken_for_pipeline(const std::filesystem::path& path) {
  std::error_code unknown;
  try {
    if (std::filesystem::is_regular_file(path / "config.json", unknown)) {
      const auto json = io::read_json_file(path / "config.json");
      const auto kind = io::JsonObject(json, path.string()).text_or("_class_name", "");
      return kind.empty() ? ""
                          : fmt::format(
                                "{} is one part of a model ({}); name the folder above it, "
                                "which has model_index.json",
                                path.string(), io::in_quotes(kind));
    }
    if (path.extension() == ".safetensors" && std::filesystem::is_regular_file(path, unknown)) {
      const io::SafetensorsFile file(path);
      const auto is_lora = [](const auto& tensor) { return tensor.name.starts_with("lora_unet_"); };
      return std::ranges::any_of(file.tensors(), is_lora)
                 ? path.string() +
                       " is a LoRA; model.path names the base model, and adapter.init_from a LoRA "
                       "to begin from"
                 : "";
    }
  } catch (const Error&) {
    // Opening it for good says what is wrong.
  }
  return "";
}

VaeConfig vae_config_of(const io::ModelReader& file, const std::string& prefix) {
  const Shapes shapes(file, prefix);
  VaeConfig config;
  const auto levels = shapes.count("encoder.down.", ".block.0.conv1.weight");
  config.channels.clear();
  for (std::int64_t i = 0; i < levels; ++i) {
    config.channels.push_back(
        shapes.size(fmt::format("encoder.down.{}.block.0.conv1.weight", i), 0));
  }
  if (config.channels.empty()) {
    refuse(file, "no autoencoder is in it; model.vae names one in a file or folder of its own");
  }
  config.in_channels = shapes.size("encoder.conv_in.weight", 1);
  config.latent_channels = shapes.size("post_quant_conv.weight", 0);
  config.layers_per_level = shapes.count("encoder.down.0.block.", ".conv1.weight");
  return config;
}

PipelineConfig pipeline_config_of(const io::ModelReader& file) {
  PipelineConfig config;
  config.variant = variant_of(file);
  config.unet = unet_of(file, config.variant);
  config.vae = vae_config_of(file, kLdmVae);
  if (config.variant == Variant::kSdxl) {
    config.vae.scaling_factor = 0.13025;
    config.unet.usual_side = 128;
  }
  set_texts(file, config);
  config.prediction_unknown = config.variant == Variant::kSd2;
  check_pipeline(config, file.path().string());
  return config;
}

}  // namespace lorascale::models::diffusion
