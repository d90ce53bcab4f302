// The one table of options: key path, kind, help, and where the value lives in RunConfig. Reading
// YAML,
// --set, suggestions, the resolved configuration, comparisons and the reference text all derive
// from it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_config.hpp"
#include "config/yaml_tree.hpp"

namespace lorascale::config {

// Whether a run may be resumed under another value. Results must not depend on what is free to
// change.
enum class OnResume { kMustMatch, kMayChange };

struct Option {
  std::string path;  // "optimizer.lr"
  std::string form;  // what it takes: "number > 0"
  std::string help;  // one sentence
  // The kind of workload that it belongs to ("language"); empty: all of them.
  std::string_view domain = {};
  OnResume on_resume = OnResume::kMustMatch;
  std::function<void(const YamlNode&, RunConfig&)> read;  // throws ValueError
  std::function<std::string(const RunConfig&)> write;  // YAML flow text; read() restores it exactly
};

// In the order of the reference: sections together.
const std::vector<Option>& options();

// Whether models of the workload `domain` look at it.
bool means_something(const Option& option, std::string_view domain);

const Option* find_option(std::string_view path);  // nullptr: unknown
bool is_section(std::string_view path);            // "optimizer", "evaluate.early_stop"
std::vector<const Option*> options_of_section(std::string_view path);  // in table order
std::string default_text(const Option& option);
// One line for each option that is not at its default although nothing looks at it: one of other
// kinds of workloads, or of a fresh network where a trained one is named.
std::vector<std::string> idle_options(const RunConfig& config, std::string_view domain);

// The reference of every key with its form, default and help: plain for --help, Markdown for the
// docs.
enum class ReferenceFormat { kPlain, kMarkdown };
std::string describe_options(ReferenceFormat format = ReferenceFormat::kPlain);

}  // namespace lorascale::config
