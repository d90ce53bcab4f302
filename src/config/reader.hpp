// Reads a configuration: default < file < --set, later --set over earlier ones. Every value passes
// through the option table; keys of other trainers are translated. Paths stay as written: relative
// ones are relative to the working directory, wherever the file lies.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_config.hpp"

namespace lorascale::config {

struct ReadOptions {
  std::vector<std::string> overrides;  // "key.path=value", value in YAML
  int world_size = 1;                  // for keys of other trainers that count per GPU
};

struct ReadResult {
  RunConfig config;
  std::vector<std::string> translations;  // one line per alias, for the log
};

// Throws Error: kBadInput where the file cannot be read, kUsage where an override has no '=',
// kBadConfig for everything else. The message is of the first problem ("FILE:LINE: key: what;
// remedy") and counts the rest. The result is not validated yet (validate.hpp).
ReadResult read_config_file(const std::filesystem::path& path, const ReadOptions& options = {});

// The same on text; `source` names it in messages.
ReadResult read_config_text(std::string_view text, const std::string& source,
                            const ReadOptions& options = {});

}  // namespace lorascale::config
