// How the rows of the option table are written down: for the files that hold them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "config/options.hpp"
#include "config/value_kinds.hpp"

namespace lorascale::config {

inline constexpr OnResume kMayChange = OnResume::kMayChange;
inline constexpr std::int64_t kMostRows = std::int64_t{1} << 31;

// Walks from RunConfig to a member: field(&RunConfig::optimizer, &OptimizerSection::lr).
template <class... Members>
auto field(Members... members) {
  return [=](auto& config) -> auto& {
    return (config.*....*members);
  };
}

// One option per call: `access` yields a reference to the value, `kind` reads and writes it.
template <class Access, class Kind>
void add(std::vector<Option>& table, std::string path, Access access, Kind kind, std::string help,
         OnResume on_resume = OnResume::kMustMatch) {
  Option option;
  option.path = std::move(path);
  option.form = kind.form();
  option.help = std::move(help);
  option.on_resume = on_resume;
  option.read = [access, kind](const YamlNode& node, RunConfig& config) {
    kind.read(node, access(config));
  };
  option.write = [access, kind](const RunConfig& config) { return kind.write(access(config)); };
  table.push_back(std::move(option));
}

// The rows of sections run, model, adapter and data, and of all others, in the order of the
// reference.
void add_options_of_model_and_data(std::vector<Option>& table);
void add_options_of_training(std::vector<Option>& table);

}  // namespace lorascale::config
