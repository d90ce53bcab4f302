#include "config/reader.hpp"

#include <fmt/format.h>

#include <fstream>
#include <map>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "base/units.hpp"
#include "config/alias_translation.hpp"
#include "config/options.hpp"
#include "config/problems.hpp"
#include "config/suggestion.hpp"
#include "config/text.hpp"
#include "config/value_kinds.hpp"
#include "config/yaml_tree.hpp"

namespace lorascale::config {
namespace {

// A key that is right but written flat: "optimizer.lr: 1e-4" instead of a nested map.
std::string nested_form(const std::string& path) {
  std::string out;
  std::string end;
  std::size_t begin = 0;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', begin)) {
    out += path.substr(begin, dot - begin) + ": {";
    end += "}";
    begin = dot + 1;
  }
  return out + path.substr(begin) + ": ..." + end;
}

class Assembler {
 public:
  Assembler(std::string source, int world_size, Problems& problems)
      : source_(std::move(source)), world_size_(world_size), problems_(problems) {}

  void read_document(const YamlNode& root) {
    if (root.kind == YamlNode::Kind::kNull) {
      return;
    }
    if (root.kind != YamlNode::Kind::kMap) {
      throw_bad_config(fmt::format(
          "{}:{}: a configuration is a map of sections, as in 'optimizer: {{lr: 2e-4}}'", source_,
          root.line));
    }
    for (const auto& entry : root.entries) {
      walk(entry, "");
    }
    apply_aliases();
  }

  void read_override(const std::string& text);
  // What is left to do when all is read.
  void finish();

  ReadResult take() { return std::move(result_); }

 private:
  struct Origin {
    std::string spelled;
    int line;
  };

  void walk(const YamlEntry& entry, const std::string& section);
  void walk_section(const YamlEntry& entry, const std::string& path);
  void walk_alias_section(const YamlEntry& section);
  void apply_aliases();
  void assign(const std::string& path, const YamlNode& value, const std::string& spelled, int line);
  void unknown(const std::string& path, int line);
  void use(const Alias& alias, const std::string& spelled, const YamlEntry& entry);
  void tell_own_defaults();

  void refuse(int line, const std::string& message, std::string_view key = {}) {
    if (in_override_) {
      problems_.add(kAfterTheFile, override_ + ": " + message, key);
    } else {
      problems_.add(line, fmt::format("{}:{}: {}", source_, line, message), key);
    }
  }

  std::string source_;
  int world_size_;
  ReadResult result_;
  Problems& problems_;
  std::map<std::string, Origin> assigned_;  // option path -> where the file sets it
  std::set<std::string> overridden_;        // option paths that --set gives
  std::vector<AliasUse> uses_;
  bool in_override_ = false;
  std::string override_;
};

void Assembler::walk(const YamlEntry& entry, const std::string& section) {
  const std::string path = section.empty() ? entry.key : section + "." + entry.key;
  if (entry.key.find('.') != std::string::npos) {
    if (find_option(path)) {
      refuse(entry.line, in_quotes(entry.key) + " is written nested: " + nested_form(path));
    } else {
      unknown(path, entry.line);
    }
    return;
  }
  if (find_option(path)) {
    assign(path, entry.value, path, entry.line);
    return;
  }
  const Alias* alias = find_alias(entry.key);
  // peft's keys may stand where ours do.
  const bool refused_anywhere =
      alias != nullptr && section == "adapter" &&
      (alias->meaning == AliasMeaning::kOnly || alias->meaning == AliasMeaning::kRefused);
  if ((!section.empty() && !refused_anywhere) || in_override_) {
    alias = nullptr;
  }
  // "adapter" and "optimizer" are also keys of others, with a word for their value.
  const bool word = entry.value.kind == YamlNode::Kind::kScalar;
  if (is_section(path) && (!word || alias == nullptr)) {
    walk_section(entry, path);
  } else if (alias != nullptr) {
    use(*alias, entry.key, entry);
  } else if (section.empty() && !in_override_ && is_alias_section(entry.key)) {
    walk_alias_section(entry);
  } else {
    unknown(path, entry.line);
  }
}

// A key of another trainer without a value is one that its user left to the default.
void Assembler::use(const Alias& alias, const std::string& spelled, const YamlEntry& entry) {
  if (entry.value.kind == YamlNode::Kind::kNull && alias.meaning == AliasMeaning::kSame) {
    result_.translations.push_back(spelled + " without a value → no effect");
  } else {
    uses_.push_back({&alias, spelled, &entry.value, entry.line});
  }
}

void Assembler::walk_section(const YamlEntry& entry, const std::string& path) {
  if (entry.value.kind == YamlNode::Kind::kNull) {
    return;  // a section whose keys are all commented out
  }
  if (entry.value.kind != YamlNode::Kind::kMap) {
    refuse(entry.line, fmt::format("{} is a section; write its keys below it, as in '{}'", path,
                                   nested_form(options_of_section(path).front()->path)));
    return;
  }
  for (const auto& child : entry.value.entries) {
    walk(child, path);
  }
}

void Assembler::walk_alias_section(const YamlEntry& section) {
  if (section.value.kind == YamlNode::Kind::kNull) {
    return;
  }
  if (section.value.kind != YamlNode::Kind::kMap) {
    refuse(section.line, section.key + " is a section; write its keys below it");
    return;
  }
  for (const auto& entry : section.value.entries) {
    const std::string spelled = section.key + "." + entry.key;
    if (const Alias* alias = find_alias(entry.key)) {
      use(*alias, spelled, entry);
    } else {
      unknown(spelled, entry.line);
    }
  }
}

void Assembler::apply_aliases() {
  const auto refuse_use = [this](const AliasUse& use, const std::string& message) {
    refuse(use.line, use.spelled + ": " + message, use.alias->target);
  };
  Translation translation = translate_aliases(uses_, world_size_, refuse_use);
  result_.translations.insert(result_.translations.end(), translation.lines.begin(),
                              translation.lines.end());
  for (const bool implied : {false, true}) {
    for (const auto& given : translation.assignments) {
      if (given.implied != implied || (implied && assigned_.contains(given.path))) {
        continue;
      }
      assign(given.path, given.value, given.spelled, given.line);
      if (implied) {
        result_.translations.push_back(given.report);
      }
    }
  }
}

void Assembler::assign(const std::string& path, const YamlNode& value, const std::string& spelled,
                       int line) {
  if (in_override_) {
    overridden_.insert(path);
  } else {
    const auto [first, fresh] = assigned_.emplace(path, Origin{spelled, line});
    if (!fresh) {
      refuse(line, fmt::format("{} and {} (line {}) both set {}; keep one of them", spelled,
                               first->second.spelled, first->second.line, path));
      return;
    }
  }
  const std::string key = spelled == path ? path : fmt::format("{} ({})", spelled, path);
  try {
    const bool quotes_dropped = read_leniently(
        value, [&](const YamlNode& node) { find_option(path)->read(node, result_.config); });
    result_.given.insert(path);
    if (quotes_dropped) {
      result_.translations.push_back(fmt::format("{}: {}", key, kQuotesDropped));
    }
  } catch (const ValueError& error) {
    refuse(value.line > 0 ? value.line : line, key + ": " + error.what());
  }
}

void Assembler::unknown(const std::string& path, int line) {
  std::string message = "unknown key " + in_quotes(path);
  if (in_override_) {
    if (const Alias* alias = find_alias(path); alias != nullptr && find_option(alias->target)) {
      refuse(line, fmt::format("{}; --set takes '{}'", message, alias->target));
      return;
    }
  }
  if (problems_.count() < Problems::kShown) {  // hostile files have many
    message += suggestion_for(path);
  }
  refuse(line, message);
}

// Other trainers have other defaults for what makes the recipe: what their keys leave open is said.
void Assembler::tell_own_defaults() {
  static constexpr std::array<std::string_view, 9> kRecipe = {
      "adapter.rank",  "adapter.alpha",   "adapter.targets",      "batch.global", "optimizer.lr",
      "schedule.name", "schedule.warmup", "data.sequence_length", "data.packing"};
  std::string left;
  for (const auto path : kRecipe) {
    const Option* option = find_option(path);
    const bool per_rank = path == "batch.global" && result_.config.batch.per_rank;
    if (!per_rank && !result_.given.contains(option->path)) {
      left += (left.empty() ? "" : ", ") + option->path + " " + option->write(result_.config);
    }
  }
  if (!uses_.empty() && !left.empty()) {
    result_.translations.push_back(
        "not set, and so as lorascale has it, which may be otherwise than "
        "in the trainer of these keys: " +
        left);
  }
}

// A batch per rank, and how many ranks there are, make a global batch; one that --set gives stands.
void Assembler::finish() {
  BatchSection& batch = result_.config.batch;
  if (overridden_.contains("batch.global")) {
    batch.per_rank.reset();
  } else if (batch.per_rank &&
             (overridden_.contains("batch.per_rank") || !assigned_.contains("batch.global"))) {
    batch.global = *batch.per_rank * world_size_;
    result_.translations.push_back(fmt::format("batch.per_rank {} × {} → batch.global {}",
                                               *batch.per_rank, counted(world_size_, "rank"),
                                               batch.global));
  }
  tell_own_defaults();
}

void Assembler::read_override(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw Error(ExitCode::kUsage, "--set " + in_quotes(text) +
                                      ": write key.path=value, as in --set optimizer.lr=1e-4");
  }
  in_override_ = true;
  override_ = "--set " + in_quotes(text);
  const std::string path = text.substr(0, equals);
  try {
    const YamlNode value = parse_yaml(std::string_view(text).substr(equals + 1));
    if (find_option(path)) {
      assign(path, value, path, kAfterTheFile);
    } else if (is_section(path)) {
      walk_section({path, kAfterTheFile, value}, path);
    } else {
      unknown(path, kAfterTheFile);
    }
  } catch (const YamlError& error) {
    refuse(kAfterTheFile, error.what());
  }
  in_override_ = false;
}

std::string read_whole_file(const std::filesystem::path& path) {
  const std::string name = path_in_quotes(path.string());
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    throw_bad_input("there is no configuration " + name + "; check the path");
  }
  if (!std::filesystem::is_regular_file(status)) {  // a pipe would block for ever
    throw_bad_input("configuration " + name + " is not a regular file");
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw_bad_input("cannot open configuration " + name + "; check its permissions");
  }
  std::string text(kMaxConfigBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) {
    throw_bad_input("cannot read configuration " + name);
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

}  // namespace

ReadResult read_config_text(std::string_view text, const std::string& source,
                            const ReadOptions& options, Problems& problems) {
  const std::string name = path_in_quotes(source);
  const std::string shown = name.find('\\') == std::string::npos ? source : name;
  YamlNode root;
  try {
    root = parse_yaml(text);
  } catch (const YamlError& error) {
    throw_bad_config(fmt::format("{}:{}: {}", shown, error.line(), error.what()));
  }
  Assembler assembler(shown, options.world_size, problems);
  assembler.read_document(root);
  for (const auto& text_of_override : options.overrides) {
    assembler.read_override(text_of_override);
  }
  assembler.finish();
  return assembler.take();
}

ReadResult read_config_text(std::string_view text, const std::string& source,
                            const ReadOptions& options) {
  Problems problems;
  auto result = read_config_text(text, source, options, problems);
  problems.throw_if_any();
  return result;
}

ReadResult read_config_file(const std::filesystem::path& path, const ReadOptions& options,
                            Problems& problems) {
  return read_config_text(read_whole_file(path), path.string(), options, problems);
}

ReadResult read_config_file(const std::filesystem::path& path, const ReadOptions& options) {
  return read_config_text(read_whole_file(path), path.string(), options);
}

}  // namespace lorascale::config
