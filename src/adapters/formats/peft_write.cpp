// Writing an adapter folder, and the proof that what was written is what was trained.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "adapters/base_name.hpp"
#include "adapters/formats/factor.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "io/durable_file.hpp"
#include "io/safetensors_writer.hpp"

namespace lorascale::adapters {
namespace {

std::string last_part(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
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

// Short names where they mean exactly the adapted modules, else full paths, else, where a path is
// the end of another one, as a stem's "conv1", one expression.
nlohmann::json names_of_targets(const std::vector<LoraModule>& modules,
                                const std::vector<nn::Site>& sites) {
  std::set<std::string> adapted, suffixes;
  for (const auto& module : modules) {
    adapted.insert(module.site.name);
    suffixes.insert(last_part(module.site.name));
  }
  for (const auto& names : {suffixes, adapted}) {
    if (std::ranges::none_of(names,
                             [&](const auto& name) { return names_more(name, adapted, sites); })) {
      return names;
    }
  }
  return expression_of_layers(adapted);
}

// The same for parts whose layers go by two names.
nlohmann::json names_of_targets(const std::vector<LoraModule>& modules,
                                const std::vector<nn::Site>& sites,
                                const std::string& other_prefix) {
  auto names = names_of_targets(modules, sites);
  if (names.is_string() && !other_prefix.empty()) {  // of whole names; those of a list are ends
    names = "(" + other_prefix + ")?(" + names.get<std::string>() + ")";
  }
  return names;
}

nlohmann::json config_json(const std::vector<LoraModule>& modules,
                           const std::vector<nn::Site>& sites, const LoraSettings& settings,
                           const ExportContext& context, const PeftStorage& storage) {
  // Null, as in peft, where the base is no folder that could be named.
  const BaseModel base = context.base.empty() ? BaseModel{} : base_model_of(context.base);
  nlohmann::json ranks = nlohmann::json::object();
  nlohmann::json alphas = nlohmann::json::object();
  for (const auto& module : modules) {
    if (module.rank != settings.rank) {
      ranks[key_of_layer(module.site.name)] = module.rank;
    }
    if (module.alpha != settings.alpha) {
      alphas[key_of_layer(module.site.name)] = module.alpha;
    }
  }
  const auto number = [](double value) -> nlohmann::json {
    const auto whole = static_cast<std::int64_t>(value);
    return static_cast<double>(whole) == value ? nlohmann::json(whole) : nlohmann::json(value);
  };
  return {
      {"peft_type", "LORA"},
      {"task_type",
       context.task_type.empty() ? nlohmann::json(nullptr) : nlohmann::json(context.task_type)},
      {"base_model_name_or_path",
       base.name.empty() ? nlohmann::json(nullptr) : nlohmann::json(base.name)},
      {"revision", base.revision.empty() ? nlohmann::json(nullptr) : nlohmann::json(base.revision)},
      {"auto_mapping", nullptr},
      {"inference_mode", true},
      {"r", settings.rank},
      {"lora_alpha", number(settings.alpha)},
      {"lora_dropout", settings.dropout},
      {"target_modules", names_of_targets(modules, sites, storage.other_prefix)},
      {"modules_to_save", nullptr},
      {"bias", "none"},
      {"fan_in_fan_out", false},
      {"init_lora_weights", true},
      {"use_rslora", settings.rslora},
      {"use_dora", settings.dora},
      {"rank_pattern", ranks},
      {"alpha_pattern", alphas},
      {"layers_to_transform", nullptr},
      {"layers_pattern", nullptr}};
}

void check_export(const std::filesystem::path& folder, const std::vector<LoraModule>& modules,
                  const std::vector<PeftModule>& trained, const PeftStorage& storage) {
  const PeftAdapter written = read_peft_adapter(folder);
  const std::set<std::string> prefixes = {"", storage.other_prefix};
  LS_ASSERT(written.modules.size() == modules.size() * prefixes.size());
  for (std::size_t i = 0; i < modules.size(); ++i) {
    for (const auto& prefix : prefixes) {
      const auto found = written.modules.find(prefix + modules[i].site.name);
      if (found == written.modules.end() || !found->second.equals(trained[i])) {
        throw Error(ExitCode::kInternal,
                    folder.string() + ": the written adapter differs from the trained one in " +
                        modules[i].site.name + "; do not use it");
      }
    }
  }
}

// CPU fp32, contiguous, in the shapes of the file.
std::vector<PeftModule> trained_modules(const std::vector<LoraModule>& modules,
                                        const TrainableParameters& parameters) {
  const at::Tensor master = parameters.master().cpu();
  std::vector<PeftModule> trained;
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto views = views_of(parameters, master, modules.size(), i);
    trained.push_back({views.a, views.b, modules[i].alpha, modules[i].scale, views.magnitude});
  }
  return trained;
}

}  // namespace

void write_peft_adapter(const std::filesystem::path& folder, const std::vector<LoraModule>& modules,
                        const std::vector<nn::Site>& sites, const LoraSettings& settings,
                        const TrainableParameters& parameters, const ExportContext& context) {
  write_peft_factors(folder, modules, trained_modules(modules, parameters), sites, settings,
                     context);
}

void write_peft_factors(const std::filesystem::path& folder, const std::vector<LoraModule>& modules,
                        const std::vector<PeftModule>& factors, const std::vector<nn::Site>& sites,
                        const LoraSettings& settings, const ExportContext& context,
                        const PeftStorage& storage) {
  io::create_folders(folder);
  FactorsToWrite to_write(storage.type);
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& [a, b, alpha, scale, magnitude] = factors[i];
    for (const auto& prefix : std::set<std::string>{"", storage.other_prefix}) {
      const auto name = std::string(kPeftPrefix) + prefix;
      to_write.add(lora_a_name(name + modules[i].site.name), a);
      to_write.add(lora_b_name(name + modules[i].site.name), b);
      if (magnitude.defined()) {
        to_write.add(dora_name(name + modules[i].site.name),
                     b.dim() == 4 ? magnitude.view({1, -1, 1, 1}) : magnitude);
      }
    }
  }
  io::SafetensorsMetadata metadata = {{"format", "pt"}};
  for (const auto& [key, value] : context.metadata) {
    metadata.emplace(key, value);
  }
  io::write_safetensors(folder / kPeftWeights, to_write.tensors(), metadata);
  const auto config = config_json(modules, sites, settings, context, storage);
  io::write_file_atomically(folder / kPeftConfig, std::string_view(config.dump(2) + "\n"));
  check_export(folder, modules, factors, storage);
}

}  // namespace lorascale::adapters
