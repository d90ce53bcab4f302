// Names of base models: what an adapter says that it was made for, and whether that is the model
// that it is about to be applied to, as far as names tell.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "adapters/formats/peft.hpp"

namespace lorascale::adapters {

// The name of a model by its folder or its id on a hub: the last component, in lower case; of a
// folder in a hub's cache (models--OWNER--NAME/snapshots/REVISION) the NAME.
std::string model_name(const std::filesystem::path& model);

// What adapter_config.json names, so that peft finds the model from any working directory: the
// absolute path of the folder of `model`; of a folder in a hub's cache, or a link to one, the
// model's id there, "owner/name", and the revision, which is empty otherwise.
struct BaseModel {
  std::string name;
  std::string revision;
};
BaseModel base_model_of(const std::filesystem::path& model);

// A line for the user where the adapter names another base than `base`: neither the same path nor
// the same name, links resolved. Shapes may fit all the same, and then nothing else would tell.
std::optional<std::string> warning_of_other_base(const PeftAdapter& adapter,
                                                 const std::filesystem::path& base);

}  // namespace lorascale::adapters
