// The config.json files of a diffusers folder.
#include "models/diffusion/pipeline_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::models::diffusion {
namespace {

using Fields = io::JsonObject;

// Beyond any model, and small enough for products of them to fit 63 bits.
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 14;
constexpr std::int64_t kMaxLayers = 128;
constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 24;
constexpr std::size_t kMaxLevels = 8;

void require_text(const Fields& fields, std::string_view key, const std::string& usual) {
  const auto text = fields.text_or(key, usual);
  if (text != usual) {
    fields.fail(key, "is " + io::in_quotes(text) + "; only " + usual + " is supported");
  }
}

void require_flag(const Fields& fields, std::string_view key, bool usual) {
  if (fields.boolean_or(key, usual) != usual) {
    fields.fail(key, std::string("is ") + (usual ? "false" : "true") + ", which is not supported");
  }
}

void require_absent(const Fields& fields, std::initializer_list<const char*> keys) {
  for (const auto* key : keys) {
    if (fields.has(key) && fields.raw(key) != false) {
      fields.fail(key, "belongs to a kind of model that is not supported");
    }
  }
}

// A number for each level: one for all, or a list of them.
std::vector<std::int64_t> per_level(const Fields& fields, std::string_view key, std::size_t levels,
                                    std::int64_t fallback) {
  if (!fields.has(key) || !fields.raw(key).is_array()) {
    return std::vector<std::int64_t>(levels, fields.integer_or(key, fallback, 1, kMaxWidth));
  }
  auto values = fields.integers(key, 1, kMaxWidth);
  if (values.size() != levels) {
    fields.fail(key, fmt::format("has {} numbers for {} levels", values.size(), levels));
  }
  return values;
}

std::vector<std::int64_t> widths_of(const Fields& fields) {
  auto widths = fields.integers("block_out_channels", 1, kMaxWidth);
  if (widths.empty() || widths.size() > kMaxLevels) {
    fields.fail("block_out_channels",
                fmt::format("must list the widths of 1 to {} levels", kMaxLevels));
  }
  return widths;
}

std::int64_t groups_of(const Fields& fields, const std::vector<std::int64_t>& widths) {
  const auto groups = fields.integer_or("norm_num_groups", 32, 1, kMaxWidth);
  for (const auto width : widths) {
    if (width % groups != 0) {
      fields.fail("norm_num_groups", fmt::format("is {}, which does not divide the {} channels of "
                                                 "a level",
                                                 groups, width));
    }
  }
  return groups;
}

// Whether each level, from the finest to the coarsest, has transformers.
std::vector<bool> attention_of(const Fields& fields, std::size_t levels) {
  const auto read = [&](const char* key, std::string_view plain, std::string_view with) {
    const auto types = fields.texts(key);
    if (types.size() != levels) {
      fields.fail(key, fmt::format("names {} blocks for {} levels", types.size(), levels));
    }
    std::vector<bool> attention;
    for (const auto& type : types) {
      if (type != plain && type != with) {
        fields.fail(key,
                    fmt::format("has {}; there are {} and {}", io::in_quotes(type), plain, with));
      }
      attention.push_back(type == with);
    }
    return attention;
  };
  auto down = read("down_block_types", "DownBlock2D", "CrossAttnDownBlock2D");
  auto up = read("up_block_types", "UpBlock2D", "CrossAttnUpBlock2D");
  std::reverse(up.begin(), up.end());  // not std::ranges': its bits are no references
  if (up != down) {
    fields.fail("up_block_types", "do not mirror down_block_types");
  }
  return down;
}

UNetConfig read_unet(const std::filesystem::path& file, Variant* variant) {
  const auto json = io::read_json_file(file);
  const Fields fields(json, file.string());
  require_text(fields, "_class_name", "UNet2DConditionModel");
  require_text(fields, "act_fn", "silu");
  require_text(fields, "resnet_time_scale_shift", "default");
  require_text(fields, "time_embedding_type", "positional");
  require_absent(fields, {"class_embed_type", "num_class_embeds", "time_cond_proj_dim",
                          "encoder_hid_dim", "dual_cross_attention", "only_cross_attention",
                          "class_embeddings_concat", "timestep_post_act", "time_embedding_act_fn"});
  require_flag(fields, "flip_sin_to_cos", true);
  require_flag(fields, "center_input_sample", false);
  UNetConfig config;
  const auto widths = widths_of(fields);
  config.in_channels = fields.integer_or("in_channels", 4, 1, kMaxWidth);
  if (fields.has("sample_size") && fields.raw("sample_size").is_number()) {
    config.usual_side = fields.integer_or("sample_size", 0, 1, kMaxWidth);
  }
  config.out_channels = fields.integer_or("out_channels", 4, 1, kMaxWidth);
  config.layers_per_level = fields.integer_or("layers_per_block", 2, 1, kMaxLayers);
  config.groups = groups_of(fields, widths);
  config.context = fields.integer_or("cross_attention_dim", 1280, 1, kMaxWidth);
  // "attention_head_dim" is the number of heads in models of this family, by an old mistake.
  const auto* heads_key =
      fields.has("num_attention_heads") ? "num_attention_heads" : "attention_head_dim";
  const auto heads = per_level(fields, heads_key, widths.size(), 8);
  const auto depths = per_level(fields, "transformer_layers_per_block", widths.size(), 1);
  const auto attention = attention_of(fields, widths.size());
  for (std::size_t i = 0; i < widths.size(); ++i) {
    config.levels.push_back({widths[i], attention[i] ? depths[i] : 0, heads[i]});
    if (widths[i] % heads[i] != 0) {
      fields.fail(heads_key, fmt::format("gives {} heads to {} channels, which they do not divide",
                                         heads[i], widths[i]));
    }
  }
  require_text(fields, "mid_block_type", "UNetMidBlock2DCrossAttn");
  config.middle_depth = depths.back();
  const auto addition = fields.text_or("addition_embed_type", "");
  if (!addition.empty() && addition != "text_time") {
    fields.fail("addition_embed_type",
                "is " + io::in_quotes(addition) + "; only text_time is known");
  }
  if (addition == "text_time") {
    config.addition = fields.integer("projection_class_embeddings_input_dim", 1, kMaxWidth);
    if (fields.integer_or("addition_time_embed_dim", 256) != 256) {
      fields.fail("addition_time_embed_dim", "must be 256");
    }
  }
  *variant = addition == "text_time"                             ? Variant::kSdxl
             : fields.boolean_or("use_linear_projection", false) ? Variant::kSd2
                                                                 : Variant::kSd1;
  return config;
}

TextEncoderConfig read_text_encoder(const std::filesystem::path& file, Variant variant) {
  const auto json = io::read_json_file(file);
  const Fields whole(json, file.string());
  // Of a whole CLIP model, the text's part.
  const Fields fields = whole.has("text_config") ? whole.object("text_config") : whole;
  require_text(whole, "model_type", "clip_text_model");
  TextEncoderConfig config;
  auto& clip = config.clip;
  clip.vocabulary = fields.integer_or("vocab_size", 49408, 1, kMaxVocabulary);
  clip.positions = fields.integer_or("max_position_embeddings", 77, 3, kMaxWidth);
  clip.hidden = fields.integer_or("hidden_size", 512, 1, kMaxWidth);
  clip.intermediate = fields.integer_or("intermediate_size", 2048, 1, 4 * kMaxWidth);
  clip.layers = fields.integer_or("num_hidden_layers", 12, 1, kMaxLayers);
  clip.heads = fields.integer_or("num_attention_heads", 8, 1, kMaxWidth);
  clip.norm_eps = fields.number_or("layer_norm_eps", 1e-5);
  if (clip.hidden % clip.heads != 0) {
    fields.fail("num_attention_heads", fmt::format("is {}, which does not divide hidden_size {}",
                                                   clip.heads, clip.hidden));
  }
  const auto activation = fields.text_or("hidden_act", "quick_gelu");
  if (activation != "quick_gelu" && activation != "gelu") {
    fields.fail("hidden_act",
                "is " + io::in_quotes(activation) + "; there are quick_gelu and gelu");
  }
  clip.activation = activation == "gelu" ? nn::Activation::kGelu : nn::Activation::kQuickGelu;
  // Old files say 2, which no vocabulary of CLIP's ends with: the highest id is meant.
  const auto end = fields.integer_or("eos_token_id", 49407, 0, kMaxVocabulary);
  clip.end_token = end == 2 ? clip.vocabulary - 1 : end;
  if (whole.has("architectures")) {
    const auto names = whole.texts("architectures");
    if (std::ranges::find(names, "CLIPTextModelWithProjection") != names.end()) {
      clip.projection = fields.integer_or("projection_dim", 512, 1, kMaxWidth);
    }
  }
  if (variant == Variant::kSdxl) {
    config.context = {2, /*final_norm=*/false};
  }
  return config;
}

void read_schedule(const std::filesystem::path& file, PipelineConfig& config) {
  const auto json = io::read_json_file(file);
  const Fields fields(json, file.string());
  auto& noise = config.noise;
  noise.steps = fields.integer_or("num_train_timesteps", 1000, 1, 1 << 20);
  noise.beta_start = fields.number_or("beta_start", 0.00085);
  noise.beta_end = fields.number_or("beta_end", 0.012);
  const auto betas = fields.text_or("beta_schedule", "scaled_linear");
  if (betas != "scaled_linear" && betas != "linear") {
    fields.fail("beta_schedule",
                "is " + io::in_quotes(betas) + "; there are scaled_linear and linear");
  }
  noise.betas = betas == "linear" ? BetaSchedule::kLinear : BetaSchedule::kScaledLinear;
  if (!(noise.beta_start > 0 && noise.beta_start <= noise.beta_end && noise.beta_end < 1)) {
    fields.fail("beta_end", "and beta_start must lie in that order between 0 and 1");
  }
  const auto prediction = fields.text_or("prediction_type", "epsilon");
  if (prediction != "epsilon" && prediction != "v_prediction") {
    fields.fail("prediction_type",
                "is " + io::in_quotes(prediction) + "; there are epsilon and v_prediction");
  }
  noise.prediction = prediction == "epsilon" ? Prediction::kEpsilon : Prediction::kVelocity;
  noise.zero_terminal_snr = fields.boolean_or("rescale_betas_zero_snr", false);
  const auto spacing = fields.text_or("timestep_spacing", "leading");
  config.spacing = spacing == "trailing"   ? Spacing::kTrailing
                   : spacing == "linspace" ? Spacing::kLinspace
                                           : Spacing::kLeading;
  config.spacing_offset = fields.integer_or("steps_offset", 1, 0, 1);
}

// Kinds of pipelines that are no plain text-to-picture model of this family, by their class.
void require_known_class(const Fields& index) {
  const auto name = index.text_or("_class_name", "");
  constexpr std::array kKnown = {"StableDiffusionPipeline", "StableDiffusionXLPipeline"};
  if (std::ranges::find(kKnown, name) == kKnown.end()) {
    index.fail("_class_name", "is " + io::in_quotes(name) +
                                  "; supported are StableDiffusionPipeline (SD 1 and 2) and "
                                  "StableDiffusionXLPipeline, not inpainting, refiners or others");
  }
}

}  // namespace

std::string variant_name(Variant variant) {
  switch (variant) {
    case Variant::kSd1:
      return "stable-diffusion-1";
    case Variant::kSd2:
      return "stable-diffusion-2";
    case Variant::kSdxl:
      return "stable-diffusion-xl";
  }
  LS_ASSERT(false);
}

VaeConfig read_vae_config(const std::filesystem::path& file) {
  const auto json = io::read_json_file(file);
  const Fields fields(json, file.string());
  require_text(fields, "_class_name", "AutoencoderKL");
  require_text(fields, "act_fn", "silu");
  require_absent(fields, {"shift_factor", "latents_mean", "latents_std"});
  require_flag(fields, "use_quant_conv", true);
  require_flag(fields, "use_post_quant_conv", true);
  require_flag(fields, "mid_block_add_attention", true);
  VaeConfig config;
  config.channels = widths_of(fields);
  config.in_channels = fields.integer_or("in_channels", 3, 1, kMaxWidth);
  config.latent_channels = fields.integer_or("latent_channels", 4, 1, kMaxWidth);
  config.layers_per_level = fields.integer_or("layers_per_block", 1, 1, kMaxLayers);
  config.groups = groups_of(fields, config.channels);
  config.scaling_factor = fields.number_or("scaling_factor", 0.18215);
  if (!(config.scaling_factor > 0)) {
    fields.fail("scaling_factor", "must be above zero");
  }
  return config;
}

bool is_pipeline_folder(const std::filesystem::path& path) {
  std::error_code unknown;
  return std::filesystem::is_regular_file(path / "model_index.json", unknown);
}

PipelineConfig read_pipeline_config(const std::filesystem::path& folder) {
  const auto file = folder / "model_index.json";
  const auto json = io::read_json_file(file);
  const Fields index(json, file.string());
  require_known_class(index);
  PipelineConfig config;
  config.unet = read_unet(folder / "unet" / "config.json", &config.variant);
  config.vae = read_vae_config(folder / "vae" / "config.json");
  config.texts.push_back(
      read_text_encoder(folder / "text_encoder" / "config.json", config.variant));
  if (config.variant == Variant::kSdxl) {
    config.texts.push_back(
        read_text_encoder(folder / "text_encoder_2" / "config.json", config.variant));
    config.zeros_for_empty = index.boolean_or("force_zeros_for_empty_prompt", true);
  }
  read_schedule(folder / "scheduler" / "scheduler_config.json", config);
  check_pipeline(config, folder.string());
  return config;
}

void check_pipeline(const PipelineConfig& config, const std::string& where) {
  const auto refuse = [&](const std::string& what) {
    throw_bad_input(where + ": " + what + "; the parts are not of one model");
  };
  const auto& unet = config.unet;
  std::int64_t context = 0;
  for (const auto& text : config.texts) {
    context += text.clip.hidden;
  }
  if (context != unet.context) {
    refuse(fmt::format("the UNet takes captions of width {}, the text encoders make {}",
                       unet.context, context));
  }
  if (unet.in_channels == 9 || unet.in_channels == 8) {
    throw_bad_input(
        fmt::format("{}: the UNet takes {} channels, as {} do, which are not supported", where,
                    unet.in_channels,
                    unet.in_channels == 9 ? "models for inpainting" : "InstructPix2Pix models"));
  }
  if (unet.in_channels != config.vae.latent_channels ||
      unet.out_channels != config.vae.latent_channels) {
    refuse(fmt::format("the UNet takes {} channels, the autoencoder makes {}", unet.in_channels,
                       config.vae.latent_channels));
  }
  if (unet.addition > 0) {
    const auto pooled = config.texts.back().clip.projection;
    if (pooled == 0 || unet.addition != pooled + 6 * 256) {
      refuse(
          fmt::format("the UNet takes {} numbers beside the time, the text encoder makes {} "
                      "and six sizes 256 each",
                      unet.addition, pooled));
    }
  }
}

}  // namespace lorascale::models::diffusion
