// Going on from an adapter folder: the settings that attach the same layers, and the weights.
#include <algorithm>
#include <cmath>

#include "adapters/formats/peft.hpp"
#include "adapters/targets.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

// The layers one by one, or where one's whole name may be another's end, an expression: what a list
// names it names by its end.
std::vector<std::string> names_of(const PeftAdapter& adapter) {
  std::set<std::string> names;
  for (const auto& [name, module] : adapter.modules) {
    names.insert(name);
  }
  if (std::ranges::any_of(names, [](const auto& name) { return key_of_layer(name) != name; })) {
    return {"^(" + expression_of_layers(names) + ")"};
  }
  return {names.begin(), names.end()};
}

}  // namespace

LoraSettings settings_to_go_on(const PeftAdapter& adapter) {
  LoraSettings settings = adapter.settings;
  const auto adapts = [&](const std::string& target) {
    return std::ranges::any_of(
        adapter.modules, [&](const auto& module) { return target_names(target, module.first); });
  };
  std::erase_if(settings.targets, [&](const std::string& target) { return !adapts(target); });
  const bool all_named = std::ranges::all_of(adapter.modules, [&](const auto& module) {
    return std::ranges::any_of(settings.targets, [&](const std::string& target) {
      return target_names(target, module.first);
    });
  });
  if (!all_named) {
    settings.targets = names_of(adapter);
  }
  for (const auto& [name, module] : adapter.modules) {
    if (module.a.size(0) != settings.rank) {
      settings.rank_pattern.emplace(key_of_layer(name), module.a.size(0));
    }
    if (module.alpha != settings.alpha) {
      settings.alpha_pattern.emplace(key_of_layer(name), module.alpha);
    }
  }
  return settings;
}

void load_peft_adapter(const PeftAdapter& adapter, const std::vector<LoraModule>& modules,
                       TrainableParameters& parameters) {
  const auto refuse = [&](const std::string& what) {
    throw_bad_config("adapter.init_from " + adapter.folder.string() + ": " + what +
                     "; leave adapter.rank, alpha, targets and their patterns out, and they are "
                     "taken from its " +
                     kPeftConfig);
  };
  if (adapter.modules.size() != modules.size()) {
    refuse("adapts " + std::to_string(adapter.modules.size()) + " layers, the config " +
           std::to_string(modules.size()));
  }
  for (std::size_t i = 0; i < modules.size(); ++i) {
    const auto found = adapter.modules.find(modules[i].site.name);
    if (found == adapter.modules.end()) {
      refuse("has no " + modules[i].site.name);
    }
    const auto& [a, b, alpha, scale, magnitude, scaling] = found->second;
    auto [to_a, to_b, to_magnitude] = views_of(parameters, parameters.master(), modules.size(), i);
    if (magnitude.defined() != to_magnitude.defined()) {
      refuse(magnitude.defined() ? "is of DoRA, and adapter.dora is false"
                                 : "is plain LoRA, and adapter.dora is true");
    }
    if (a.size(0) != to_a.size(0)) {
      refuse(modules[i].site.name + " has rank " + std::to_string(a.size(0)) + " there");
    }
    if (a.sizes() != to_a.sizes() || b.sizes() != to_b.sizes()) {
      throw_bad_input("adapter.init_from " + adapter.folder.string() + ": " + modules[i].site.name +
                      " does not fit this model's shape; it was made for '" + adapter.base_model +
                      "'");
    }
    if (std::abs(scale - modules[i].scale) > 1e-12 * std::abs(scale)) {
      refuse(modules[i].site.name + " is scaled by " + std::to_string(scale) + " there, by " +
             std::to_string(modules[i].scale) + " here");
    }
    to_a.copy_(a);
    to_b.copy_(b);
    if (magnitude.defined()) {
      to_magnitude.copy_(magnitude);
    }
  }
  parameters.refresh();
}

}  // namespace lorascale::adapters
