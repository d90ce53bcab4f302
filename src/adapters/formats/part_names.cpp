#include "adapters/formats/part_names.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"

namespace lorascale::adapters {

std::string part_of_layer(const std::string& name) {
  const auto part = name.substr(0, name.find('.'));
  return part.size() < name.size() && std::ranges::find(kParts, part) != std::end(kParts) ? part
                                                                                          : "";
}

void add_by_one_name(const std::string& name, PeftModule module, const std::string& where,
                     std::map<std::string, PeftModule>& modules) {
  const auto part = part_of_layer(name);
  auto layer = name.substr(part.size() + 1);
  if (part != kParts[0] && !layer.starts_with(kTextModel)) {
    layer = std::string(kTextModel) + layer;
  }
  const auto full = part + "." + layer;
  const auto found = modules.find(full);
  if (found == modules.end()) {
    modules.emplace(full, std::move(module));
  } else if (!found->second.equals(module)) {
    throw_bad_input(where + ": " + full + " is there twice, with and without " +
                    std::string(kTextModel) + ", and the two differ");
  }
}

void require_one_kind(const PeftAdapter& adapter) {
  if (adapter.modules.empty()) {
    throw_bad_input(adapter.folder.string() + ": holds no LoRA weights");
  }
  for (const auto& [name, module] : adapter.modules) {
    if (module.magnitude.defined() != adapter.settings.dora) {
      throw_bad_input(adapter.folder.string() + ": " + name +
                      " has no magnitudes of DoRA, and others have; such a mixture cannot be read");
    }
  }
}

}  // namespace lorascale::adapters
