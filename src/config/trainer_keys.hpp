// What keys of axolotl, LLaMA-Factory, Hugging Face (Trainer, TRL) and kohya say that is more than
// a value under another name. One function a meaning; pure but for the files of `dataset_dir`.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/alias_translation.hpp"

namespace lorascale::config {

// Options that a key sets, and what is said of it where it sets none.
struct Carried {
  std::vector<std::pair<std::string, YamlNode>> settings;
  std::string outcome;
};

// The value of another key of the same file, or nullptr.
using Sibling = std::function<const YamlNode*(std::string_view name)>;

// For the meanings that alias_translation.cpp does not know itself. Throws ValueError.
Carried carry_over(const AliasUse& use, const Sibling& sibling);

// The keys, in groups that the documentation shows as one line each.
std::span<const Alias> trainer_keys();

}  // namespace lorascale::config
