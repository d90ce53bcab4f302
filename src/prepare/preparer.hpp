// The kinds of data that become token files (and, one day, others) before a run, and by which
// script. A new kind is one more entry of the table.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/child_process.hpp"
#include "config/run_config.hpp"

namespace lorascale::prepare {

// What a path of the configuration stands for.
struct Inputs {
  std::vector<std::filesystem::path> arguments;  // as the script is given them
  std::vector<std::filesystem::path> files;      // all that is read of them, in order
};

struct Preparer {
  std::string_view name;    // "text"
  std::string_view takes;   // in words, for messages
  std::string_view script;  // in scripts/; takes INPUTS, --output FILE and --validation FILE
  // The script's own package in scripts/, of which its results depend.
  std::string_view package;
  // Nothing where the path, a file or a folder, is not of this kind.
  std::optional<Inputs> (*find_inputs)(const std::filesystem::path& path,
                                       const KeepGoing& keep_going);
  // Modules that its Python must have.
  std::vector<std::string> (*modules)(const config::RunConfig& config);
  // Arguments that shape the result by what they say, and those that do by the files they name.
  // Error(kBadConfig) where settings contradict the model.
  std::vector<std::string> (*settings)(const config::RunConfig& config);
  std::vector<std::string> (*locations)(const config::RunConfig& config);
  // The files behind `locations` by what they are to the script; those that are not there do not
  // count.
  std::map<std::string, std::filesystem::path> (*support)(const config::RunConfig& config);
};

std::span<const Preparer> preparers();

// The preparer of all the paths, and their inputs joined. `key` is the setting they come from.
// Error(kBadInput) where there is none, or more than one.
struct Claim {
  const Preparer* preparer = nullptr;
  Inputs inputs;
};
Claim claim(const std::string& key, std::span<const std::filesystem::path> paths,
            const KeepGoing& keep_going);

extern const Preparer kTextPreparer;

}  // namespace lorascale::prepare
