// Writing an adapter folder, and the proof that what was written is what was trained.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "adapters/formats/factor.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/formats/peft_files.hpp"
#include "adapters/targets.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

// Of parts, too, whose layers go by two names.
nlohmann::json names_of_targets(const std::vector<LoraModule>& modules,
                                const std::vector<nn::Site>& sites,
                                const std::string& other_prefix) {
  std::set<std::string> layers;
  for (const auto& module : modules) {
    layers.insert(module.site.name);
  }
  auto names = peft_names_of(layers, sites);
  if (names.is_string() && !other_prefix.empty()) {  // of whole names; those of a list are ends
    names = "(" + other_prefix + ")?(" + names.get<std::string>() + ")";
  }
  return names;
}

nlohmann::json config_json(const std::vector<LoraModule>& modules,
                           const std::vector<nn::Site>& sites, const LoraSettings& settings,
                           const ExportContext& context, const PeftStorage& storage) {
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
  auto config = peft_config_of("LORA", context);
  config.update({{"r", settings.rank},
                 {"lora_alpha", number(settings.alpha)},
                 {"lora_dropout", settings.dropout},
                 {"target_modules", names_of_targets(modules, sites, storage.other_prefix)},
                 {"bias", "none"},
                 {"init_lora_weights", true},
                 {"use_rslora", settings.rslora},
                 {"use_dora", settings.dora},
                 {"rank_pattern", ranks},
                 {"alpha_pattern", alphas},
                 {"layers_to_transform", nullptr},
                 {"layers_pattern", nullptr}});
  return config;
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
  FactorsToWrite to_write(storage.type);
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto& [a, b, alpha, scale, magnitude, scaling] = factors[i];
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
  write_peft_files(folder, to_write, config_json(modules, sites, settings, context, storage),
                   context);
  check_export(folder, modules, factors, storage);
}

}  // namespace lorascale::adapters
