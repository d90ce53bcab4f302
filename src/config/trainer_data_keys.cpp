#include "config/trainer_data_keys.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>

#include "config/value_kinds.hpp"

namespace lorascale::config {
namespace {

namespace fs = std::filesystem;

struct FieldName {
  std::string_view theirs, ours;
};

// Kinds of records of axolotl that are told here by their keys.
constexpr std::array<std::string_view, 8> kRecordTypes = {
    "alpaca",        "alpaca_chat", "alpaca_w_system", "sharegpt",
    "chat_template", "completion",  "input_output",    "pretrain"};
constexpr std::array kAxolotlFields = {FieldName{"field", "text"},
                                       FieldName{"field_messages", "messages"},
                                       FieldName{"field_system", "system"},
                                       FieldName{"field_instruction", "prompt"},
                                       FieldName{"field_input", "input"},
                                       FieldName{"field_output", "completion"},
                                       FieldName{"field_tools", "tools"},
                                       FieldName{"message_field_role", "role"},
                                       FieldName{"message_field_content", "content"}};
constexpr std::array kFactoryFields = {
    FieldName{"prompt", "prompt"},       FieldName{"query", "input"},
    FieldName{"response", "completion"}, FieldName{"history", "history"},
    FieldName{"system", "system"},       FieldName{"tools", "tools"},
    FieldName{"messages", "messages"}};
// Of axolotl's items: what changes nothing here. The files tell what they are, records which role
// is which.
constexpr std::array<std::string_view, 5> kNoMatter = {
    "ds_type", "conversation", "preprocess_shards", "trust_remote_code", "name"};
// Those that change what is learnt, the values that say what is done here anyway, and the way to
// the others.
struct OnlyAs {
  std::string_view key;
  std::array<std::string_view, 3> values;
  std::string_view otherwise;
};
constexpr std::array<OnlyAs, 6> kOnlyAs = {
    OnlyAs{"roles_to_train",
           {"assistant", "gpt", "model"},
           "answers are learnt; data.prepare.learn: everything takes all of a chat"},
    OnlyAs{"train_on_eos", {"turn", "", ""}, "the token that ends an answer is learnt with it"},
    OnlyAs{"train_on_eot", {"turn", "", ""}, "the token that ends an answer is learnt with it"},
    OnlyAs{"shards", {"1", "0", ""}, "the whole set is trained on; name a file with the part"},
    OnlyAs{"chat_template",
           {"tokenizer_default", "tokenizer", ""},
           "data.prepare.chat_template names the template of all sets"},
    OnlyAs{"drop_system_message",
           {"false", "", ""},
           "remove system messages from the data, or --ignore system (data.prepare.ignore)"}};

void require_as_done(const OnlyAs& only, const YamlNode& value) {
  std::vector<std::string> given;
  if (value.kind == YamlNode::Kind::kSequence) {
    TextListKind{false, "[role, ...]"}.read(value, given);
  } else {
    given.push_back(scalar_text(value, "a word"));
  }
  for (const auto& word : given) {
    if (std::find(only.values.begin(), only.values.end(), word) == only.values.end()) {
      throw ValueError(
          fmt::format("{}: {} is not supported: {}", only.key, in_quotes(word), only.otherwise));
    }
  }
}

using Columns = std::map<std::string, std::string>;

YamlNode as_node(const Columns& columns, int line) {
  YamlNode node;
  node.kind = YamlNode::Kind::kMap;
  node.line = line;
  for (const auto& [part, name] : columns) {
    node.entries.push_back({part, line, YamlNode::scalar(name, line)});
  }
  return node;
}

template <std::size_t N>
std::optional<std::string> ours(const std::array<FieldName, N>& names, const std::string& theirs) {
  const auto found = std::find_if(names.begin(), names.end(),
                                  [&](const FieldName& name) { return name.theirs == theirs; });
  return found == names.end() ? std::nullopt : std::optional(std::string(found->ours));
}

// {role: [names of it in the data]}, of those that records are read by (docs/data.md).
void require_usual_roles(const YamlNode& roles) {
  static constexpr std::array kUsual = {
      FieldName{"system", "system"},       FieldName{"developer", "system"},
      FieldName{"user", "user"},           FieldName{"human", "user"},
      FieldName{"assistant", "assistant"}, FieldName{"gpt", "assistant"},
      FieldName{"model", "assistant"},     FieldName{"bot", "assistant"},
      FieldName{"chatgpt", "assistant"},   FieldName{"tool", "tool"},
      FieldName{"function", "tool"}};
  for (const auto& role : roles.entries) {
    std::vector<std::string> names;
    TextListKind{false, "[name, ...]"}.read(role.value, names);
    for (const auto& name : names) {
      if (ours(kUsual, name) != role.key) {
        throw ValueError(
            fmt::format("roles: {} for {} is not supported; call the roles in the data system, "
                        "user and assistant (or human and gpt)",
                        in_quotes(name), role.key));
      }
    }
  }
}

const YamlNode* find(const YamlNode& map, std::string_view key) {
  for (const auto& entry : map.entries) {
    if (entry.key == key) {
      return entry.value.kind == YamlNode::Kind::kNull ? nullptr : &entry.value;
    }
  }
  return nullptr;
}

// What records tell by themselves.
void drop_usual(Columns& columns) {
  static constexpr std::array kUsual = {
      FieldName{"messages", "messages"}, FieldName{"messages", "conversations"},
      FieldName{"role", "role"},         FieldName{"role", "from"},
      FieldName{"content", "content"},   FieldName{"content", "value"},
      FieldName{"text", "text"},         FieldName{"system", "system"},
      FieldName{"tools", "tools"},       FieldName{"history", "history"}};
  std::erase_if(columns, [](const auto& column) {
    return std::any_of(kUsual.begin(), kUsual.end(), [&](const FieldName& usual) {
      return usual.theirs == column.first && usual.ours == column.second;
    });
  });
}

// What all the sets of a key make together.
class Sets {
 public:
  void add(std::string path, const Columns& columns) {
    if (!paths_.empty() && columns != columns_) {
      throw ValueError(
          "names sets whose fields are called differently; give them one naming, or "
          "prepare them one by one (scripts/prepare_text.py)");
    }
    columns_ = columns;
    paths_.push_back(std::move(path));
  }
  [[nodiscard]] const Columns& columns() const { return columns_; }
  [[nodiscard]] Carried carried(const AliasUse& use) const {
    if (paths_.empty()) {
      throw ValueError("names no set; give a path");
    }
    const std::string target(use.alias->target);
    const bool alone = target != "data.train";
    if (alone && paths_.size() > 1) {
      throw ValueError("names several sets; one is validated on, which may be a folder");
    }
    Carried carried;
    std::vector<YamlNode> items;
    for (const auto& path : paths_) {
      items.push_back(YamlNode::scalar(path, use.line));
    }
    carried.settings.emplace_back(
        target, items.size() == 1 ? items.front() : YamlNode::sequence(std::move(items), use.line));
    if (!columns_.empty() && !alone) {
      carried.settings.emplace_back("data.prepare.columns", as_node(columns_, use.line));
    }
    return carried;
  }

 private:
  std::vector<std::string> paths_;
  Columns columns_;
};

void require_known_type(const YamlNode& type, Columns& columns) {
  if (type.kind == YamlNode::Kind::kMap) {
    for (const auto& entry : type.entries) {
      if (entry.value.kind == YamlNode::Kind::kNull) {
        continue;
      }
      const auto part = ours(kAxolotlFields, entry.key);
      if (!part) {
        throw ValueError("type: " + entry.key +
                         " is not supported; write the prompts into the data as they are to be "
                         "learnt, or use a chat template");
      }
      columns[*part] = scalar_text(entry.value, "a name");
    }
    return;
  }
  const std::string& name = scalar_text(type, "a kind of records");
  const auto plain = name.substr(0, name.find_first_of(":."));
  if (std::find(kRecordTypes.begin(), kRecordTypes.end(), plain) == kRecordTypes.end()) {
    throw ValueError("type: " + in_quotes(name) +
                     " is not known; records are told by their keys here (docs/data.md), and "
                     "data.prepare.columns names others");
  }
}

// {role: ..., content: ...}: under which names a turn has them.
void take_turn(const YamlNode& names, Columns& columns) {
  for (const auto& entry : names.entries) {
    const std::string& name = scalar_text(entry.value, "a name");
    if (entry.key == "role" || entry.key == "content") {
      columns[entry.key] = name;
    } else if (entry.key != name) {
      throw ValueError("message_property_mappings: " + entry.key +
                       " is not supported; call it so in the data");
    }
  }
}

std::vector<std::string> files_of(const YamlNode& item) {
  const YamlNode* path = find(item, "path");
  std::vector<std::string> files;
  if (path != nullptr) {
    PathKind::read(*path, files.emplace_back());
  }
  const YamlNode* data = find(item, "data_files");
  if (data == nullptr) {
    return files;
  }
  std::vector<std::string> given;
  TextListKind{false, "[file, ...]"}.read(*data, given);
  std::error_code ignored;
  // `path: json` names a reader; a folder or a set of the Hub holds the files.
  const bool reader = files.empty() || files[0].find_first_of("/.") == std::string::npos;
  for (auto& file : given) {
    file = reader && !(path != nullptr && fs::is_directory(files[0], ignored))
               ? file
               : (fs::path(files[0]) / file).string();
  }
  return given;
}

void add_item(const YamlNode& item, Sets& sets) {
  if (item.kind == YamlNode::Kind::kScalar) {
    std::string path;
    PathKind::read(item, path);
    sets.add(path, {});
    return;
  }
  if (item.kind != YamlNode::Kind::kMap) {
    throw ValueError("expects a list of {path: ..., type: ...}");
  }
  Columns columns;
  for (const auto& [key, line, value] : item.entries) {
    if (value.kind == YamlNode::Kind::kNull || key == "path" || key == "data_files" ||
        std::find(kNoMatter.begin(), kNoMatter.end(), key) != kNoMatter.end()) {
      continue;
    }
    const auto* only = std::find_if(kOnlyAs.begin(), kOnlyAs.end(),
                                    [&](const OnlyAs& known) { return known.key == key; });
    if (only != kOnlyAs.end()) {
      require_as_done(*only, value);
    } else if (key == "roles") {
      require_usual_roles(value);
    } else if (const auto part = ours(kAxolotlFields, key)) {
      columns[*part] = scalar_text(value, "a name");
    } else if (key == "type") {
      require_known_type(value, columns);
    } else if (key == "split") {
      if (scalar_text(value, "a name") != "train") {
        throw ValueError("split: " + in_quotes(value.text) +
                         " is not supported; save that part as a file and name it");
      }
    } else if (key == "message_property_mappings") {
      take_turn(value, columns);
    } else {
      throw ValueError(in_quotes(key) + " of a set is not supported; remove it");
    }
  }
  drop_usual(columns);
  for (auto& file : files_of(item)) {
    sets.add(std::move(file), columns);
  }
}

Sets sets_of(const YamlNode& list) {
  Sets sets;
  if (list.kind == YamlNode::Kind::kSequence) {
    for (const auto& item : list.items) {
      add_item(item, sets);
    }
  } else {
    add_item(list, sets);
  }
  return sets;
}

// An entry of LLaMA-Factory's dataset_info.json.
void add_named(const std::string& name, const fs::path& folder, const YamlNode& info, Sets& sets) {
  const YamlNode* entry = find(info, name);
  if (entry == nullptr) {
    throw ValueError(fmt::format("{} is neither a file nor in {}", path_in_quotes(name),
                                 (folder / "dataset_info.json").string()));
  }
  const YamlNode* file = find(*entry, "file_name");
  if (file == nullptr) {
    throw ValueError(in_quotes(name) +
                     " lies on the Hugging Face Hub; fetch it (hf download --repo-type dataset "
                     "OWNER/NAME --local-dir FOLDER) and name its file");
  }
  Columns columns;
  if (const YamlNode* given = find(*entry, "columns")) {
    for (const auto& column : given->entries) {
      const auto part = ours(kFactoryFields, column.key);
      if (!part) {
        throw ValueError(fmt::format("column {} of {} is not supported; only text is trained on",
                                     in_quotes(column.key), in_quotes(name)));
      }
      columns[*part] = scalar_text(column.value, "a name");
    }
  }
  if (const auto ranking = find(*entry, "ranking"); ranking != nullptr && ranking->text == "true") {
    throw ValueError(in_quotes(name) + " holds preferences, which are not trained on");
  }
  if (const YamlNode* tags = find(*entry, "tags")) {
    for (const auto& tag : tags->entries) {
      if (tag.key == "role_tag" || tag.key == "content_tag") {
        columns[tag.key.substr(0, tag.key.find('_'))] = scalar_text(tag.value, "a name");
      }
    }
  }
  drop_usual(columns);
  sets.add((folder / scalar_text(*file, "a file")).string(), columns);
}

YamlNode read_info(const fs::path& file, const std::string& name) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  if (!stream) {
    throw ValueError(
        fmt::format("{} is no file, and there is no {} to explain it; name the file itself",
                    path_in_quotes(name), file.string()));
  }
  try {
    return parse_yaml(text.str());  // which JSON is
  } catch (const YamlError& error) {
    throw ValueError(fmt::format("{}, line {}: {}", file.string(), error.line(), error.what()));
  }
}

}  // namespace

Carried carry_datasets(const AliasUse& use, const YamlNode* trained_on) {
  if (use.value->kind == YamlNode::Kind::kNull) {
    return {{}, "no effect"};
  }
  const Sets sets = sets_of(*use.value);
  // Those of `datasets` are taken for both.
  const bool other = !sets.columns().empty() && trained_on != nullptr &&
                     trained_on->kind != YamlNode::Kind::kNull && trained_on != use.value &&
                     sets_of(*trained_on).columns() != sets.columns();
  if (other) {
    throw ValueError(
        "calls its fields otherwise than datasets; give both one naming (field_...), or prepare "
        "them one by one (scripts/prepare_text.py)");
  }
  return sets.carried(use);
}

Carried carry_dataset_names(const AliasUse& use, const YamlNode* folder) {
  if (use.value->kind == YamlNode::Kind::kNull) {
    return {{}, "no effect"};
  }
  std::vector<std::string> names;
  if (use.value->kind == YamlNode::Kind::kScalar) {
    std::stringstream list(use.value->text);
    for (std::string name; std::getline(list, name, ',');) {
      name.erase(0, std::min(name.find_first_not_of(' '), name.size()));
      name.erase(name.find_last_not_of(' ') + 1);
      names.push_back(name);
    }
  } else {
    TextListKind{false, "[name, ...]"}.read(*use.value, names);
  }
  const fs::path root = folder == nullptr ? "data" : scalar_text(*folder, "a folder");
  std::optional<YamlNode> info;
  Sets sets;
  for (const auto& name : names) {
    std::error_code ignored;
    // A path, or an owner and a name on the Hub, which is said to be missing when it is opened.
    if (name.find('/') != std::string::npos || fs::path(name).has_extension() ||
        fs::exists(name, ignored)) {
      sets.add(name, {});
      continue;
    }
    if (!info) {
      info = read_info(root / "dataset_info.json", name);
    }
    add_named(name, root, *info, sets);
  }
  return sets.carried(use);
}

}  // namespace lorascale::config
