#include "adapters/formats/peft_files.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "adapters/base_name.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/targets.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors_writer.hpp"

namespace lorascale::adapters {
namespace {

std::string last_part(const std::string& layer) {
  return layer.substr(layer.rfind('.') + 1);
}

nlohmann::json text_or_null(const std::string& text) {
  return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
}

// Whether peft would take a name for a part of the model that is not adapted: another layer, or one
// that holds layers, as the "0" of "layer1.0.downsample.0" is the end of "layer1.0", too.
bool names_more(const std::string& name, const std::set<std::string>& adapted,
                const std::vector<nn::Site>& sites) {
  for (const auto& site : sites) {
    auto end = site.name.size();
    while (end != std::string::npos && end > 0) {
      const auto part = site.name.substr(0, end);
      if (target_names(name, part) && !adapted.contains(part)) {
        return true;
      }
      end = part.rfind('.');
    }
  }
  return false;
}

}  // namespace

nlohmann::json peft_config_of(const char* peft_type, const ExportContext& context) {
  // Null, as in peft, where the base is no folder that could be named.
  const BaseModel base = context.base.empty() ? BaseModel{} : base_model_of(context.base);
  return {{"peft_type", peft_type},
          {"task_type", text_or_null(context.task_type)},
          {"base_model_name_or_path", text_or_null(base.name)},
          {"revision", text_or_null(base.revision)},
          {"auto_mapping", nullptr},
          {"inference_mode", true},
          {"modules_to_save", nullptr},
          {"fan_in_fan_out", false}};
}

nlohmann::json peft_names_of(const std::set<std::string>& layers,
                             const std::vector<nn::Site>& sites) {
  std::set<std::string> suffixes;
  for (const auto& layer : layers) {
    suffixes.insert(last_part(layer));
  }
  for (const auto& names : {suffixes, layers}) {
    if (std::ranges::none_of(names,
                             [&](const auto& name) { return names_more(name, layers, sites); })) {
      return names;
    }
  }
  return expression_of_layers(layers);
}

void write_peft_files(const std::filesystem::path& folder, const FactorsToWrite& weights,
                      const nlohmann::json& config, const ExportContext& context) {
  io::create_folders(folder);
  io::SafetensorsMetadata metadata = {{"format", "pt"}};
  for (const auto& [key, value] : context.metadata) {
    metadata.emplace(key, value);
  }
  io::write_safetensors(folder / kPeftWeights, weights.tensors(), metadata);
  io::write_file_atomically(folder / kPeftConfig, std::string_view(config.dump(2) + "\n"));
}

}  // namespace lorascale::adapters
