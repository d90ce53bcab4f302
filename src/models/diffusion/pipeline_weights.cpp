// Where the tensors of a pipeline are found, and what they are called there.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <utility>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "models/diffusion/ldm_names.hpp"
#include "models/diffusion/pipeline.hpp"
#include "models/weights_reader.hpp"

namespace lorascale::models::diffusion {
namespace {

// One part of a pipeline: where it is read, and how.
struct Part {
  std::string name;  // its slots begin with it and a dot
  WeightsReader reader;
  // q, k and v stand in one tensor, and the projection is turned (OpenCLIP).
  bool open_clip = false;
  std::function<bool(const std::string&)> harmless{};
};

std::string without(const std::string& key, std::size_t prefix) {
  return key.substr(prefix);
}

// transformers 5 saves CLIP-L without "text_model." and reads both.
WeightsReader::StoredName clip_names(const io::ModelReader& files, std::size_t prefix,
                                     const std::string& before) {
  const std::string nested = "text_model.";
  const bool bare = files.find(before + nested + "embeddings.token_embedding.weight") == nullptr &&
                    files.find(before + "embeddings.token_embedding.weight") != nullptr;
  return [=](const std::string& key) {
    auto name = without(key, prefix);
    if (bare && name.starts_with(nested)) {
      name = name.substr(nested.size());
    }
    return before + name;
  };
}

// Folders that are older than diffusers' to_q ... to_out.
WeightsReader::StoredName vae_names(const io::ModelReader& files, std::size_t prefix) {
  const bool old = files.find("encoder.mid_block.attentions.0.query.weight") != nullptr;
  return [=](const std::string& key) {
    auto name = without(key, prefix);
    static const std::map<std::string, std::string> kOld = {
        {"to_q", "query"}, {"to_k", "key"}, {"to_v", "value"}, {"to_out.0", "proj_attn"}};
    for (const auto& [now, then] : kOld) {
      const auto at = name.find("attentions.0." + now + ".");
      if (old && at != std::string::npos) {
        name.replace(at + std::string("attentions.0.").size(), now.size(), then);
      }
    }
    return name;
  };
}

bool is_position_ids(const std::string& key) {
  return key.ends_with("position_ids");
}

void add_folder_parts(const std::filesystem::path& folder, const PipelineConfig& config,
                      std::vector<Part>& parts) {
  for (std::size_t i = 0; i < config.texts.size(); ++i) {
    const auto name = text_part_name(i);
    auto& part = parts.emplace_back(Part{name, WeightsReader(folder / name)});
    part.reader.name_by(clip_names(part.reader.files(), name.size() + 1, ""));
    part.harmless = is_position_ids;
  }
  auto& unet = parts.emplace_back(Part{"unet", WeightsReader(folder / "unet")});
  unet.reader.name_by([](const std::string& key) { return without(key, 5); });
  unet.harmless = [](const std::string&) { return false; };
}

Part vae_part(const std::filesystem::path& file_or_folder) {
  Part part{"vae", WeightsReader(file_or_folder)};
  const bool ldm = part.reader.files().find("encoder.down.0.block.0.conv1.weight") != nullptr;
  if (!ldm) {
    part.reader.name_by(vae_names(part.reader.files(), 4));
    part.harmless = [](const std::string&) { return false; };
  }
  return part;
}

// Names of an autoencoder in a file of LDM's, with or without what opens them in a whole model.
void name_ldm_vae(Part& part, std::int64_t levels, bool alone) {
  part.reader.name_by([levels, alone](const std::string& key) {
    const auto name = vae_name_in_ldm(without(key, 4), levels);
    return alone ? name.substr(std::string("first_stage_model.").size()) : name;
  });
}

void add_ldm_parts(const std::filesystem::path& file, const PipelineConfig& config,
                   std::vector<Part>& parts) {
  const bool xl = config.variant == Variant::kSdxl;
  for (std::size_t i = 0; i < config.texts.size(); ++i) {
    const auto name = text_part_name(i);
    const auto start = name.size() + 1;
    auto& part = parts.emplace_back(Part{name, WeightsReader(file)});
    part.open_clip = config.variant == Variant::kSd2 || i == 1;
    if (part.open_clip) {
      const std::string before = xl ? "conditioner.embedders.1.model." : "cond_stage_model.model.";
      part.reader.name_by([=](const std::string& key) {
        return before + text_name_in_open_clip(without(key, start));
      });
    } else {
      part.reader.name_by(clip_names(
          part.reader.files(), start,
          xl ? "conditioner.embedders.0.transformer." : "cond_stage_model.transformer."));
    }
  }
  std::vector<bool> attention;
  for (const auto& level : config.unet.levels) {
    attention.push_back(level.depth > 0);
  }
  auto& unet = parts.emplace_back(Part{"unet", WeightsReader(file)});
  unet.reader.name_by([attention, layers = config.unet.layers_per_level](const std::string& key) {
    return unet_name_in_ldm(without(key, 5), layers, attention);
  });
}

std::vector<Part> parts_of(const PipelineSource& source, const PipelineConfig& config) {
  std::vector<Part> parts;
  const auto levels = std::ssize(config.vae.channels);
  if (is_pipeline_folder(source.path)) {
    add_folder_parts(source.path, config, parts);
  } else {
    add_ldm_parts(source.path, config, parts);
  }
  if (source.vae) {
    auto part = vae_part(*source.vae);
    if (!part.harmless) {
      name_ldm_vae(part, levels, /*alone=*/true);
    }
    parts.push_back(std::move(part));
  } else if (is_pipeline_folder(source.path)) {
    parts.push_back(vae_part(source.path / "vae"));
  } else {
    auto& part = parts.emplace_back(Part{"vae", WeightsReader(source.path)});
    name_ldm_vae(part, levels, /*alone=*/false);
  }
  return parts;
}

// A slot's parts that the file holds as one tensor are one part here.
nn::ParameterSlot joined(nn::ParameterSlot slot) {
  auto& first = slot.parts.front();
  for (std::size_t i = 1; i < slot.parts.size(); ++i) {
    first.shape[0] += slot.parts[i].shape[0];
  }
  slot.parts.resize(1);
  return slot;
}

std::vector<nn::ParameterSlot> slots_of(const Part& part,
                                        const std::vector<nn::ParameterSlot>& all) {
  std::vector<nn::ParameterSlot> mine;
  for (const auto& slot : all) {
    if (slot.parts.front().key.starts_with(part.name + ".")) {
      mine.push_back(part.open_clip ? joined(slot) : slot);
    }
  }
  return mine;
}

void check_parts(const std::vector<Part>& parts, const std::vector<nn::ParameterSlot>& all) {
  for (const auto& part : parts) {
    const auto slots = slots_of(part, all);
    part.reader.check(slots);
    if (part.harmless) {
      part.reader.refuse_others(slots, part.harmless);
    }
  }
}

bool is_projection(const std::string& key) {
  return key.ends_with("text_projection.weight");
}

// OpenCLIP multiplies by the projection from the other side than a linear layer does.
void turn_projection(const std::vector<nn::ParameterSlot>& slots) {
  for (const auto& slot : slots) {
    if (is_projection(slot.parts.front().key)) {
      slot.value->copy_(slot.value->t().clone());
    }
  }
}

PipelineConfig config_of(const PipelineSource& source) {
  if (const auto mistaken = mistaken_for_pipeline(source.path); !mistaken.empty()) {
    throw_bad_input(mistaken);
  }
  auto config = is_pipeline_folder(source.path) ? read_pipeline_config(source.path)
                                                : pipeline_config_of(io::ModelReader(source.path));
  if (source.vae) {
    const auto scale = config.vae.scaling_factor;
    std::error_code unknown;
    const auto file = io::model_folder(*source.vae) / "config.json";
    if (std::filesystem::is_regular_file(file, unknown)) {
      config.vae = read_vae_config(file);
    } else {
      config.vae = vae_config_of(io::ModelReader(*source.vae), "");
      config.vae.scaling_factor = scale;  // the file does not say
    }
    check_pipeline(config, source.vae->string());
  }
  return config;
}

at::ScalarType stored_type(const std::vector<Part>& parts) {
  for (const auto& part : parts) {
    if (part.name == "unet") {
      return part.reader.type_of(part.reader.at("unet.conv_in.weight"));
    }
  }
  LS_ASSERT(false);
}

}  // namespace

std::unique_ptr<Pipeline> read_pipeline_shapes(const PipelineSource& source,
                                               std::optional<at::ScalarType> dtype) {
  auto config = config_of(source);
  const auto parts = parts_of(source, config);
  auto shapes = std::make_unique<Pipeline>(std::move(config), dtype.value_or(stored_type(parts)),
                                           at::Device(at::kMeta));
  check_parts(parts, shapes->slots());
  return shapes;
}

std::unique_ptr<Pipeline> load_pipeline(const PipelineSource& source,
                                        std::optional<at::ScalarType> dtype,
                                        const WeightPlace& place) {
  // Without memory first: a config.json that asks for more than the files hold ends here.
  const auto shapes = read_pipeline_shapes(source, dtype);
  const auto parts = parts_of(source, shapes->config());
  auto pipeline = std::make_unique<Pipeline>(shapes->config(), shapes->dtype(), place.device());
  const auto to_read = place.settle(pipeline->slots());
  for (const auto& part : parts) {
    const auto slots = slots_of(part, to_read);
    part.reader.read(slots);
    if (part.open_clip) {
      turn_projection(slots);
    }
  }
  return pipeline;
}

std::vector<StoredWeight> stored_weights(const PipelineSource& source,
                                         const std::vector<std::string>& keys) {
  const auto shapes = read_pipeline_shapes(source, std::nullopt);
  const auto parts = parts_of(source, shapes->config());
  std::map<std::string, std::pair<const Part*, std::int64_t>> places;
  for (const auto& part : parts) {
    for (const auto& slot : shapes->slots()) {
      std::int64_t row = 0;
      for (const auto& [key, shape] : slot.parts) {
        if (key.starts_with(part.name + ".")) {
          places[key] = {&part, part.open_clip ? row : 0};
          row += shape[0];
        }
      }
    }
  }
  std::vector<StoredWeight> found;
  for (const auto& key : keys) {
    const auto& [part, row] = places.at(key);
    found.push_back({part->reader.files().path(), part->reader.stored(key), row,
                     part->open_clip && is_projection(key)});
  }
  return found;
}

namespace {

// Of the files of these parts, in a folder; of a single file, all of it.
std::string fingerprint_of(const PipelineSource& source, std::initializer_list<const char*> parts) {
  std::string all;
  if (is_pipeline_folder(source.path)) {
    for (const auto* part : parts) {
      if (const auto folder = source.path / part; std::filesystem::exists(folder)) {
        all += io::ModelReader(folder).fingerprint();
      }
    }
  } else {
    all = io::ModelReader(source.path).fingerprint();
  }
  return all;
}

}  // namespace

std::string pipeline_fingerprint(const PipelineSource& source) {
  auto all = fingerprint_of(source, {"unet", "text_encoder", "text_encoder_2", "vae"});
  if (source.vae) {
    all += io::ModelReader(*source.vae).fingerprint();
  }
  return sha256_hex(all);
}

std::string part_fingerprint(const PipelineSource& source, const std::string& part) {
  if (part == "vae") {
    return source.vae ? io::ModelReader(*source.vae).fingerprint()
                      : fingerprint_of(source, {"vae"});
  }
  return fingerprint_of(source, {"text_encoder", "text_encoder_2"});
}

}  // namespace lorascale::models::diffusion
