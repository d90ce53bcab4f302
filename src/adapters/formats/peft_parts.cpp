#include "adapters/formats/peft_parts.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "adapters/formats/factor.hpp"
#include "adapters/formats/part_names.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;

// A part's layers by the names they have in its folder, as sites of their own.
struct PartOfModel {
  std::string name;
  std::string left_out;  // before all layers, in the first of their two names
  std::vector<nn::Site> sites;
  std::vector<LoraModule> modules;
  std::vector<PeftModule> factors;

  [[nodiscard]] std::string prefix() const { return name + "." + left_out; }
};

template <class Value>
Value usual_of(const std::vector<LoraModule>& modules, Value LoraModule::*member) {
  std::map<Value, std::int64_t> counts;
  for (const auto& module : modules) {
    ++counts[module.*member];
  }
  return std::ranges::max_element(counts, {}, [](const auto& entry) { return entry.second; })
      ->first;
}

PartOfModel part_of_model(const std::string& name, const PeftAdapter& adapter,
                          const std::vector<nn::Site>& sites) {
  PartOfModel part{name, name == "text_encoder" ? std::string(kTextModel) : "", {}, {}, {}};
  for (const auto& site : sites) {
    if (part_of_layer(site.name) != name) {
      continue;
    }
    LS_ASSERT(site.name.starts_with(part.prefix()));
    part.sites.push_back(site);
    part.sites.back().name = site.name.substr(part.prefix().size());
    if (const auto found = adapter.modules.find(site.name); found != adapter.modules.end()) {
      auto module = found->second;
      const auto rank = module.a.size(0);
      const LoraSettings plain;  // scales are alpha / rank, whatever they were
      if (plain.scale(rank, module.alpha) != module.scale) {
        module.alpha = module.scale * static_cast<double>(rank);
        module.scale = plain.scale(rank, module.alpha);
      }
      part.modules.push_back({part.sites.back(), rank, module.alpha, module.scale});
      part.factors.push_back(std::move(module));
    }
  }
  return part;
}

}  // namespace

std::vector<fs::path> peft_parts(const fs::path& folder) {
  std::vector<fs::path> parts;
  for (const auto* part : kParts) {
    if (std::error_code unknown; fs::is_regular_file(folder / part / kPeftConfig, unknown)) {
      parts.push_back(folder / part);
    }
  }
  return parts;
}

bool has_peft_parts(const fs::path& folder) {
  return !peft_parts(folder).empty();
}

PeftAdapter read_peft_parts(const fs::path& folder) {
  PeftAdapter adapter;
  adapter.folder = folder;
  for (const auto& path : peft_parts(folder)) {
    auto part = read_peft_adapter(path);
    if (part.ia3) {
      throw_bad_input(path.string() +
                      " is of IA3, which of models that make pictures is read from files of "
                      "LyCORIS' form alone");
    }
    adapter.settings.dora = adapter.settings.dora || part.settings.dora;
    for (auto& [layer, module] : part.modules) {
      add_by_one_name(path.filename().string() + "." + layer, std::move(module), path.string(),
                      adapter.modules);
    }
  }
  require_one_kind(adapter);
  return adapter;
}

void write_peft_parts(const fs::path& folder, const PeftAdapter& adapter,
                      const std::vector<nn::Site>& sites, at::ScalarType type,
                      const fs::path& model, const std::map<std::string, std::string>& metadata) {
  for (const auto* name : kParts) {
    const auto part = part_of_model(name, adapter, sites);
    if (part.modules.empty()) {
      continue;
    }
    LoraSettings settings;
    settings.rank = usual_of(part.modules, &LoraModule::rank);
    settings.alpha = usual_of(part.modules, &LoraModule::alpha);
    settings.dora = adapter.settings.dora;
    const bool exact = std::ranges::all_of(part.factors, [&](const PeftModule& module) {
      return is_exact_in(type, module.a) && is_exact_in(type, module.b) &&
             (!module.magnitude.defined() || is_exact_in(type, module.magnitude));
    });
    std::error_code unknown;
    const bool has_folder = fs::is_directory(model / name, unknown);
    write_peft_factors(folder / name, part.modules, part.factors, part.sites, settings,
                       {has_folder ? model / name : fs::path(), "", metadata, {}},
                       {exact ? type : at::kFloat, part.left_out});
  }
}

}  // namespace lorascale::adapters
