// Turns the aliases used in one file into assignments of options, and says in words what became of
// each.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config/aliases.hpp"
#include "config/yaml_tree.hpp"

namespace lorascale::config {

// An alias as the file spells it ("training_config.batch_size").
struct AliasUse {
  const Alias* alias = nullptr;
  std::string spelled;
  const YamlNode* value = nullptr;
  int line = 0;
};

struct Assignment {
  std::string path;     // of the option
  YamlNode value;       // what its read() is to be given
  std::string spelled;  // the alias or aliases it comes from
  int line = 0;
  bool implied = false;  // found beside what the alias names: gives way to anything written out
  std::string report;    // of an implied one, for when it is taken
};

struct Translation {
  std::vector<Assignment> assignments;
  std::vector<std::string> lines;  // "learning_rate 1e-4 → optimizer.lr 1e-4"
};

// Batches of the aliases count per GPU, so the global batch depends on `world_size`. Values that
// cannot be translated are handed to `refuse` (use, message) and left out.
using RefuseAlias = std::function<void(const AliasUse&, const std::string&)>;
Translation translate_aliases(const std::vector<AliasUse>& uses, int world_size,
                              const RefuseAlias& refuse);

}  // namespace lorascale::config
