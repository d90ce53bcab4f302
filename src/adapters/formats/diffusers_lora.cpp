#include "adapters/formats/diffusers_lora.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "adapters/formats/factor.hpp"
#include "adapters/formats/part_names.hpp"
#include "adapters/formats/peft_patterns.hpp"
#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::adapters {
namespace {

constexpr const char* kLoraMetadata = "lora_adapter_metadata";

// Ends of the keys of A, B and DoRA's magnitudes: of peft, of diffusers' own scripts, and as text
// encoders had them.
struct KeyEnds {
  std::string_view a, b;
};
constexpr std::array kKeyEnds = {
    KeyEnds{".lora_A.weight", ".lora_B.weight"},
    KeyEnds{".lora.down.weight", ".lora.up.weight"},
    KeyEnds{".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"},
};
constexpr std::string_view kMagnitudeEnd = ".lora_magnitude_vector";

// Where a tensor belongs: the layer by its name in the file, and which member of the module.
struct Place {
  std::string layer;
  at::Tensor PeftModule::*member;
};
std::optional<Place> place_of(const std::string& key) {
  const auto without = [&](std::string_view end) { return key.substr(0, key.size() - end.size()); };
  for (const auto& [a, b] : kKeyEnds) {
    if (key.ends_with(a)) {
      return Place{without(a), &PeftModule::a};
    }
    if (key.ends_with(b)) {
      return Place{without(b), &PeftModule::b};
    }
  }
  return key.ends_with(kMagnitudeEnd)
             ? std::optional(Place{without(kMagnitudeEnd), &PeftModule::magnitude})
             : std::nullopt;
}

// What the metadata says of a part; as it stands there, keys begin with the part's name.
class PartSettings {
 public:
  PartSettings(const nlohmann::ordered_json& all, const std::string& part, const std::string& where)
      : said_(all.contains(part + ".lora_alpha")),
        alphas_(all, (part + ".alpha_pattern").c_str(), where) {
    const nlohmann::json json = all;
    const io::JsonObject object(json, where);
    usual_ = object.number_or(part + ".lora_alpha", 0.0);
    settings_.rslora = object.boolean_or(part + ".use_rslora", false);
  }

  void apply(const std::string& layer, PeftModule& module) const {
    const auto rank = module.a.size(0);
    module.alpha = said_ ? alphas_.of(layer, usual_) : static_cast<double>(rank);
    module.scale = said_ ? settings_.scale(rank, module.alpha) : 1;
  }

 private:
  bool said_;
  PeftPatterns alphas_;
  double usual_ = 0;
  LoraSettings settings_;
};

nlohmann::ordered_json lora_metadata(const io::SafetensorsFile& file) {
  const auto found = file.metadata().find(kLoraMetadata);
  if (found == file.metadata().end()) {
    return nlohmann::ordered_json::object();
  }
  const auto where = file.path().string() + ": " + kLoraMetadata;
  // Checked by the strict reader; the other one keeps the order of patterns.
  if (!io::parse_json(found->second, where).is_object()) {
    throw_bad_input(where + " is no JSON object");
  }
  return nlohmann::ordered_json::parse(found->second);
}

void require_whole(const io::SafetensorsFile& file, const std::string& layer,
                   const PeftModule& module) {
  const auto& [a, b, alpha, scale, magnitude, scaling] = module;
  if (!a.defined() || !b.defined() || a.dim() != b.dim() || a.size(0) != b.size(1) ||
      b.numel() != b.size(0) * b.size(1) ||
      (magnitude.defined() && magnitude.size(0) != b.size(0))) {
    throw_bad_input(file.path().string() + ": factors of " + io::in_quotes(layer) +
                    " are not all there or do not fit together; get the file again");
  }
}

at::Tensor filled_up(const at::Tensor& factor, std::int64_t dimension, std::int64_t size) {
  auto missing = factor.sizes().vec();
  missing[static_cast<std::size_t>(dimension)] = size - factor.size(dimension);
  return at::cat({factor, at::zeros(missing, factor.options())}, dimension);
}

}  // namespace

bool is_diffusers_lora(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  return std::ranges::any_of(file.tensors(), [](const auto& tensor) {
    const auto place = place_of(tensor.name);
    return place && !part_of_layer(place->layer).empty();
  });
}

PeftAdapter read_diffusers_lora(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  PeftAdapter adapter;
  adapter.folder = path;
  std::map<std::string, PeftModule> modules;  // by their names in the file
  for (const auto& tensor : file.tensors()) {
    const auto place = place_of(tensor.name);
    if (!place || part_of_layer(place->layer).empty()) {
      throw_bad_input(path.string() + ": " + io::in_quotes(tensor.name) +
                      " is no LoRA of a layer as diffusers writes them, and cannot be read");
    }
    const bool vector = place->member == &PeftModule::magnitude;
    modules[place->layer].*(place->member) =
        vector ? read_vector(file, tensor.name) : read_factor(file, tensor.name);
  }
  const auto metadata = lora_metadata(file);
  std::map<std::string, PartSettings> settings;
  for (auto& [layer, module] : modules) {
    require_whole(file, layer, module);
    const auto part = part_of_layer(layer);
    settings.try_emplace(part, metadata, part, path.string() + ": " + kLoraMetadata)
        .first->second.apply(layer.substr(part.size() + 1), module);
    adapter.settings.dora = adapter.settings.dora || module.magnitude.defined();
    add_by_one_name(layer, std::move(module), path.string(), adapter.modules);
  }
  require_one_kind(adapter);
  return adapter;
}

void write_diffusers_lora(const std::filesystem::path& path,
                          const std::map<std::string, PeftModule>& modules, at::ScalarType type) {
  std::map<std::string, std::int64_t> ranks;  // of parts
  for (const auto& [name, module] : modules) {
    auto& rank = ranks[part_of_layer(name)];
    rank = std::max(rank, module.a.size(0));
  }
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, module] : modules) {
    LS_ASSERT(!module.magnitude.defined());
    const auto rank = ranks.at(part_of_layer(name));
    tensors.emplace(lora_a_name(name), filled_up(module.a, 0, rank));
    tensors.emplace(lora_b_name(name), filled_up(module.b * module.scale, 1, rank));
  }
  const bool exact = std::ranges::all_of(
      tensors, [&](const auto& entry) { return is_exact_in(type, entry.second); });
  FactorsToWrite factors(exact ? type : at::kFloat);
  for (const auto& [key, tensor] : tensors) {
    factors.add(key, tensor);
  }
  if (path.has_parent_path()) {
    io::create_folders(path.parent_path());
  }
  io::write_safetensors(path, factors.tensors(), {{"format", "pt"}});
}

}  // namespace lorascale::adapters
