// Text and records, by scripts/prepare_text.py.
#include <algorithm>
#include <array>
#include <fstream>

#include "base/error.hpp"
#include "config/text.hpp"
#include "config/value_kinds.hpp"
#include "io/model_reader.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"
#include "prepare/preparer.hpp"
#include "prepare/source_files.hpp"

namespace lorascale::prepare {
namespace {

namespace fs = std::filesystem;

// What a tokenizer, its template and its end of text are made of.
constexpr std::array<std::string_view, 8> kTokenizerFiles = {
    "tokenizer.json",      "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json",    "generation_config.json",  "config.json"};
constexpr std::string_view kMoreTemplates = "additional_chat_templates";
constexpr std::int64_t kByteVocabulary = 258;

bool is_picture(const fs::path& path) {
  std::string head(12, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  return head.starts_with("\x89PNG") || head.starts_with("\xFF\xD8\xFF") ||
         head.starts_with("GIF8") || (head.starts_with("RIFF") && head.ends_with("WEBP"));
}

// The script looks at the contents, and says what is wrong with them; a folder is its business as a
// whole: which files are data, and which of them are held out.
std::optional<Inputs> find_inputs(const fs::path& path, const KeepGoing& keep_going) {
  if (!fs::is_directory(path)) {
    return is_picture(path) ? std::nullopt : std::optional(Inputs{{path}, {path}});
  }
  auto files = files_below(path, keep_going);
  const auto is_no_text = [&](const fs::path& file) {
    require_going(keep_going, file);
    return is_picture(file);
  };
  if (std::all_of(files.begin(), files.end(), is_no_text)) {
    return std::nullopt;
  }
  return Inputs{{path}, std::move(files)};
}

// Whether the template is a file. A preset's name is the preset, whatever lies in the folder.
bool is_template_file(const std::string& chat_template) {
  return chat_template != "auto" && fs::is_regular_file(chat_template);
}

// The folder or file of the tokenizer, or "bytes".
std::string tokenizer_of(const config::RunConfig& config) {
  if (config.data.prepare.tokenizer != "auto") {
    return config.data.prepare.tokenizer;
  }
  const auto folder = io::model_folder(config.model.path);
  if (fs::exists(folder / "tokenizer.json")) {
    return folder.string();
  }
  const auto model = io::read_json_file(folder / "config.json");
  if (io::JsonObject(model, (folder / "config.json").string()).integer_or("vocab_size", 0) ==
      kByteVocabulary) {
    return "bytes";
  }
  throw_bad_config(
      "data.prepare.tokenizer: " + folder.string() +
      " has no tokenizer.json; name a folder that has one of this model, or that file");
}

std::vector<std::string> modules(const config::RunConfig& config) {
  std::vector<std::string> names = {"h5py", "numpy"};
  if (tokenizer_of(config) != "bytes") {
    names.emplace_back("tokenizers");
  }
  return names;
}

std::vector<std::string> settings(const config::RunConfig& config) {
  const auto& prepare = config.data.prepare;
  std::vector<std::string> arguments;
  // With '=': a text may begin with '-'.
  const auto add = [&](const std::string& option, const std::string& value) {
    arguments.push_back("--" + option + "=" + value);
  };
  if (prepare.chat_template != "auto" && !is_template_file(prepare.chat_template)) {
    add("chat-template", prepare.chat_template);
  }
  if (prepare.chat_template_kwargs) {
    add("chat-template-kwargs", *prepare.chat_template_kwargs);
  }
  if (prepare.default_system) {
    add("default-system", *prepare.default_system);
  }
  if (prepare.format != "auto") {
    add("format", prepare.format);
  }
  if (prepare.text_split != "document") {
    add("text-split", prepare.text_split);
  }
  if (prepare.learn != "all") {
    add("learn", prepare.learn);
  }
  if (prepare.turns != "together") {
    add("turns", prepare.turns);
  }
  std::string columns;
  for (const auto& [part, name] : prepare.columns) {
    columns += (columns.empty() ? "" : ",") + part + "=" + name;
  }
  if (!columns.empty()) {
    add("columns", columns);
  }
  std::string ignored;
  for (const auto& key : prepare.ignore) {
    ignored += (ignored.empty() ? "" : ",") + key;
  }
  if (!ignored.empty()) {
    add("ignore", ignored);
  }
  if (prepare.max_length) {
    add("max-length", std::to_string(*prepare.max_length));
  }
  if (prepare.max_records) {
    add("max-records", std::to_string(*prepare.max_records));
  }
  if (!prepare.deduplicate) {
    arguments.emplace_back("--no-dedup");
  }
  if (prepare.skip_bad) {
    arguments.emplace_back("--skip-bad");
  }
  for (const auto& prompt : config.sample.prompts) {
    add("prompt", prompt);
  }
  return arguments;
}

std::vector<std::string> locations(const config::RunConfig& config) {
  std::vector<std::string> arguments = {"--tokenizer=" + tokenizer_of(config)};
  const auto& chat = config.data.prepare.chat_template;
  if (is_template_file(chat)) {
    arguments.push_back("--chat-template=" + chat);
  }
  return arguments;
}

std::map<std::string, fs::path> support(const config::RunConfig& config) {
  std::map<std::string, fs::path> files;
  if (const std::string tokenizer = tokenizer_of(config); tokenizer != "bytes") {
    const fs::path path = tokenizer;
    const auto folder = fs::is_directory(path) ? path : path.parent_path();
    for (const auto name : kTokenizerFiles) {
      files[std::string(name)] = folder / name;
    }
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder / kMoreTemplates, ignored)) {
      files[io::json_text((fs::path(kMoreTemplates) / entry.path().filename()).string())] =
          entry.path();
    }
    if (folder != path) {
      files["data.prepare.tokenizer"] = path;
    }
  }
  if (const auto& chat = config.data.prepare.chat_template; is_template_file(chat)) {
    files["data.prepare.chat_template"] = chat;
  }
  return files;
}

}  // namespace

const Preparer kTextPreparer = {
    "text",
    "text, JSON Lines, JSON, CSV, TSV, Parquet or Arrow, packed or not, or a folder of these",
    "prepare_text.py",
    "lorascale_data",
    find_inputs,
    modules,
    settings,
    locations,
    support};

}  // namespace lorascale::prepare
