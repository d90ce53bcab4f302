// Reads a configuration: default < file < --set, later --set over earlier ones. Every value passes
// through the option table; keys of other trainers are translated. Paths stay as written: relative
// ones are relative to the working directory, wherever the file lies.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/problems.hpp"
#include "config/run_config.hpp"

namespace lorascale::config {

struct ReadOptions {
  std::vector<std::string> overrides;  // "key.path=value", value in YAML
  int world_size = 1;                  // for keys of other trainers that count per GPU
};

struct ReadResult {
  RunConfig config;
  std::vector<std::string> translations;  // of aliases and quoted numbers, for the log
  // Paths of the options that the file or an override gives a value, by whatever key.
  std::set<std::string> given;
};

// Throws Error: kBadInput where the file cannot be read, kUsage where an override has no '=',
// kBadConfig for everything else, with a line for each problem ("FILE:LINE: key: what; remedy").
// The result is not validated yet (validate.hpp).
ReadResult read_config_file(const std::filesystem::path& path, const ReadOptions& options = {});

// The same on text; `source` names it in messages.
ReadResult read_config_text(std::string_view text, const std::string& source,
                            const ReadOptions& options = {});

// The same, where keys and values that are wrong are left out of the result and added to
// `problems`; what is no YAML is thrown.
ReadResult read_config_file(const std::filesystem::path& path, const ReadOptions& options,
                            Problems& problems);
ReadResult read_config_text(std::string_view text, const std::string& source,
                            const ReadOptions& options, Problems& problems);

}  // namespace lorascale::config
