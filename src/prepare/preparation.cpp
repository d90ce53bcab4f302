#include "prepare/preparation.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <span>

#include "base/error.hpp"
#include "base/units.hpp"
#include "config/options.hpp"
#include "io/untrusted_text.hpp"
#include "prepare/prepared_cache.hpp"
#include "prepare/preparer.hpp"
#include "prepare/python.hpp"
#include "prepare/source_files.hpp"

namespace lorascale::prepare {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::string_view kTrainFile = "train.h5";
constexpr std::string_view kValidationFile = "validation.h5";
constexpr std::string_view kProgress = "progress: ";

// One data set to be made.
struct Request {
  std::string key;  // the setting: "data.train"
  std::vector<fs::path> paths;
  double validation_fraction = 0;
};

std::string joined(const std::vector<fs::path>& paths) {
  std::string list;
  for (const auto& path : paths) {
    list += (list.empty() ? "" : ", ") + path.string();
  }
  return list;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// Options of the script as the settings that stand for them, for messages of a run.
std::string in_settings(std::string text) {
  std::vector<std::pair<std::string, std::string>> names = {
      {"--skip-bad", "data.prepare.skip_bad: true"},
      {"--validation-fraction or --seed", "data.prepare.validation_fraction"}};
  for (const auto* option : config::options_of_section("data.prepare")) {
    std::string name = option->path.substr(option->path.rfind('.') + 1);
    std::replace(name.begin(), name.end(), '_', '-');
    names.emplace_back("--" + name, option->path);
  }
  // The longer before those that they begin with.
  std::stable_sort(names.begin(), names.end(), [](const auto& left, const auto& right) {
    return left.first.size() > right.first.size();
  });
  for (const auto& [option, setting] : names) {
    text = replaced(std::move(text), option, setting);
  }
  return text;
}

// The name by which a file enters the digest: relative to the folder it was found in.
std::string name_within(const fs::path& file, const std::vector<fs::path>& roots) {
  for (const auto& root : roots) {
    if (file != root && file.string().starts_with(root.string())) {
      return file.lexically_relative(root).string();
    }
  }
  return file.filename().string();
}

fs::path cache_root(const config::RunConfig& config) {
  if (config.data.prepare.cache) {
    return *config.data.prepare.cache;
  }
  fs::path run = fs::path(config.run.output_dir).lexically_normal();
  if (!run.has_filename()) {  // ended in '/'
    run = run.parent_path();
  }
  return run.parent_path() / "prepared";
}

class Preparation {
 public:
  Preparation(const config::RunConfig& config, Request request, const KeepGoing& keep_going,
              const FindPython& find)
      : config_(config),
        request_(std::move(request)),
        keep_going_(keep_going),
        find_(find),
        claim_(claim(request_.key, request_.paths, keep_going_)),
        script_(find_script(claim_.preparer->script)) {}

  // The folder, and the record of what is in it.
  std::pair<fs::path, Json> run() {
    const PreparedCache cache(cache_root(config_), request_.paths.front().stem().string(),
                              identity());
    const std::string what = request_.key + " " + joined(request_.paths);
    Json record = cache.find();
    if (!record.is_null()) {
      spdlog::info("{}: prepared before, as {}", what, cache.folder().string());
    } else {
      PreparedCache made = cache;
      record = made.make([&](const fs::path& folder) { return fill(folder, cache.folder()); },
                         keep_going_);
    }
    say(record);
    return {cache.folder(), std::move(record)};
  }

 private:
  Json identity() {
    const Preparer& preparer = *claim_.preparer;
    Json scripts = Json::array();
    scripts.push_back(digest_of_file(script_, keep_going_));
    for (const auto& file : files_below(script_.parent_path() / preparer.package, keep_going_)) {
      if (file.extension() == ".py") {
        scripts.push_back(digest_of_file(file, keep_going_));
      }
    }
    Json support = Json::object();
    for (const auto& [role, file] : preparer.support(config_)) {
      if (fs::is_regular_file(file)) {
        support[role] = digest_of_file(file, keep_going_);
      }
    }
    Json inputs = Json::array();
    for (const auto& file : claim_.inputs.files) {
      inputs.push_back(
          {io::json_text(name_within(file, request_.paths)), digest_of_file(file, keep_going_)});
    }
    auto settings = preparer.settings(config_);
    settings.push_back("--" + request_.key);
    if (request_.validation_fraction > 0) {
      settings.push_back(fmt::format("--validation-fraction={}", request_.validation_fraction));
    }
    return {{"kind", preparer.name},
            {"inputs", inputs},
            {"settings", settings},
            {"support", support},
            {"scripts", scripts}};
  }

  // Without the program in front.
  [[nodiscard]] std::vector<std::string> arguments(const fs::path& folder) const {
    std::vector<std::string> list = {script_.string()};
    for (const auto& input : claim_.inputs.arguments) {
      const std::string path = input.string();
      list.push_back(path.starts_with("-") ? "./" + path : path);
    }
    for (const auto& part :
         {claim_.preparer->locations(config_), claim_.preparer->settings(config_)}) {
      list.insert(list.end(), part.begin(), part.end());
    }
    const bool alone = request_.key != "data.train";
    list.push_back("--output=" + (folder / (alone ? kValidationFile : kTrainFile)).string());
    if (request_.validation_fraction > 0) {
      list.push_back("--validation=" + (folder / kValidationFile).string());
      list.push_back(fmt::format("--validation-fraction={}", request_.validation_fraction));
    }
    return list;
  }

  [[nodiscard]] std::string by_hand(const std::string& python, const fs::path& folder) const {
    auto list = arguments(folder);
    list.insert(list.begin(), python);
    return shell_command(list);
  }

  Json fill(const fs::path& folder, const fs::path& final_folder) {
    const auto python =
        find_({config_.data.prepare.python, claim_.preparer->modules(config_), keep_going_});
    if (!python) {
      throw_bad_input(request_.key + " " + joined(request_.paths) + " is " +
                      std::string(claim_.preparer->name) +
                      ", which Python prepares, and none with the modules of requirements.txt was "
                      "found: set LORASCALE_PYTHON, or run where there is one: " +
                      by_hand("python3", fs::path("data")) + " and set " + request_.key +
                      " to the file that it makes");
    }
    const std::string command = by_hand(*python, final_folder);
    spdlog::info("{}: preparing {} of {} ({}), once; by hand: {}", request_.key,
                 counted(static_cast<std::int64_t>(claim_.inputs.files.size()), "file"),
                 joined(request_.paths), claim_.preparer->name, command);
    ChildCommand child{{*python},
                       {{"LORASCALE_PROGRESS", "lines"},
                        {"LORASCALE_PARENT", std::to_string(::getpid())},
                        {"PYTHONDONTWRITEBYTECODE", "1"},
                        {"PYTHONUNBUFFERED", "1"}}};
    const auto list = arguments(folder);
    child.arguments.insert(child.arguments.end(), list.begin(), list.end());
    Json report = Json::array(), warnings = Json::array();
    std::string last;
    const auto outcome = run_child(
        child,
        [&](ChildStream stream, std::string_view line) {
          const auto text = readable(line, folder, final_folder);
          if (stream == ChildStream::kOutput) {
            report.push_back(in_settings(text));
          } else if (text.starts_with(kProgress)) {
            spdlog::info("{}: {}", request_.key, text.substr(kProgress.size()));
          } else if (const auto at = text.find("warning: "); at != std::string::npos) {
            warnings.push_back(in_settings(text.substr(at + 9)));
          } else {
            last = in_settings(text);
          }
        },
        keep_going_);
    require_done(outcome, last, command);
    Json sources = Json::array();
    for (const auto& path : request_.paths) {
      sources.push_back(io::json_text(fs::absolute(path).string()));
    }
    return {{"sources", sources},
            {"command", io::json_text(command)},
            {"report", report},
            {"warnings", warnings}};
  }

  // A line of a child as it may stand in a log and in JSON.
  static std::string readable(std::string_view line, const fs::path& folder,
                              const fs::path& final_folder) {
    std::string text =
        io::json_text(replaced(std::string(line), folder.string(), final_folder.string()));
    std::replace_if(
        text.begin(), text.end(),
        [](char c) { return (static_cast<unsigned char>(c) < 0x20) || c == 0x7F; }, ' ');
    return text;
  }

  void require_done(const ChildOutcome& outcome, std::string last, const std::string& command) {
    const std::string what = request_.key + " " + joined(request_.paths);
    if (outcome.stopped) {
      throw Error(ExitCode::kStopped, "stopped on request while " + what +
                                          " was prepared; nothing of it is kept, run "
                                          "it again");
    }
    if (outcome.exit_code == 0 && outcome.signal == 0) {
      return;
    }
    if (outcome.signal != 0) {
      throw Error(ExitCode::kInternal,
                  fmt::format("{}: the preparation was ended by signal {}{}; by hand: {}", what,
                              outcome.signal,
                              outcome.signal == 9 ? ", perhaps for want of memory" : "", command));
    }
    if (const auto colon = last.find(": "); last.starts_with("prepare_") && colon < 40) {
      last = last.substr(colon + 2);  // its own name
    }
    ExitCode code = ExitCode::kInternal;
    switch (outcome.exit_code) {
      case 64:
      case 78:
        code = ExitCode::kBadConfig;
        break;
      case 65:
        code = ExitCode::kBadInput;
        break;
      case 73:
        code = ExitCode::kCannotWrite;
        break;
      default:
        break;
    }
    throw Error(code, request_.key + ": " + (last.empty() ? "the preparation failed" : last) +
                          (code == ExitCode::kInternal ? "; by hand: " + command : ""));
  }

  void say(const Json& record) const {
    for (const auto& line : record.value("report", Json::array())) {
      spdlog::info("{}: {}", request_.key, line.get<std::string>());
    }
    for (const auto& line : record.value("warnings", Json::array())) {
      spdlog::warn("{}: {}", request_.key, line.get<std::string>());
    }
  }

  const config::RunConfig& config_;
  Request request_;
  const KeepGoing& keep_going_;
  const FindPython& find_;
  Claim claim_;
  fs::path script_;
};

std::vector<fs::path> train_paths(const config::RunConfig& config) {
  std::vector<fs::path> paths = {config.data.train};
  paths.insert(paths.end(), config.data.more_train.begin(), config.data.more_train.end());
  return paths;
}

// What is no token file by its name and is not there: opening it as one would speak of HDF5.
void require_there(const std::string& key, const fs::path& path) {
  std::error_code ignored;
  const auto kind = kind_of_name(path);
  if (path.empty() || kind == ".h5" || kind == ".hdf5" || fs::exists(path, ignored)) {
    return;
  }
  throw_bad_input(key + ": there is no file or folder " + path.string() +
                  "; check the path (a data set of the Hugging Face Hub is fetched first: hf "
                  "download --repo-type dataset OWNER/NAME --local-dir FOLDER)");
}

void require_no_token_file(const std::vector<fs::path>& paths) {
  for (const auto& path : paths) {
    if (is_data_file(path)) {
      throw_bad_input("data.train names " + std::to_string(paths.size()) + " paths, and " +
                      path.string() +
                      " is prepared already; only what is prepared "
                      "together may be several");
    }
  }
}

}  // namespace

DataFiles as_named(const config::RunConfig& config) {
  DataFiles files;
  files.train = config.data.train;
  if (config.data.validation) {
    files.validation = *config.data.validation;
  }
  return files;
}

void require_sources(const config::RunConfig& config) {
  const auto paths = train_paths(config);
  for (const auto& path : paths) {
    require_there("data.train", path);
  }
  if (config.data.validation) {
    require_there("data.validation", *config.data.validation);
  }
  if (paths.size() > 1) {
    require_no_token_file(paths);
  }
}

DataFiles prepare(const config::RunConfig& config, const KeepGoing& keep_going,
                  const FindPython& find) {
  require_sources(config);
  auto files = as_named(config);
  const double fraction = config.data.prepare.validation_fraction;
  const auto paths = train_paths(config);
  if (!is_data_file(files.train)) {
    auto [folder, record] =
        Preparation(config, {"data.train", paths, fraction}, keep_going, find).run();
    files.train = folder / kTrainFile;
    if (fraction > 0) {
      files.validation = folder / kValidationFile;
    }
    files.records["data.train"] = std::move(record);
  } else if (fraction > 0) {
    const std::string message =
        "data.prepare.validation_fraction has no effect: " + files.train.string() +
        " is prepared already";
    if (config.evaluate.early_stop.patience > 0 && !config.data.validation) {
      throw_bad_config(message +
                       ", and evaluate.early_stop needs a validation set: set data.validation, or "
                       "patience to 0");
    }
    spdlog::warn("{}", message);
  }
  if (config.data.validation && !is_data_file(*config.data.validation)) {
    auto [folder, record] =
        Preparation(config, {"data.validation", {*config.data.validation}, 0}, keep_going, find)
            .run();
    files.validation = folder / kValidationFile;
    files.records["data.validation"] = std::move(record);
  }
  return files;
}

std::string difference(const Json& before, const Json& now) {
  const auto inputs_of = [](const Json& record) {
    std::map<std::string, std::string> inputs;
    for (const auto& input : record.at("identity").at("inputs")) {
      inputs[input.at(0).get<std::string>()] = input.at(1).get<std::string>();
    }
    return inputs;
  };
  const auto old = inputs_of(before);
  const auto current = inputs_of(now);
  std::vector<std::string> found;
  for (const auto& [name, digest] : current) {
    const auto same = old.find(name);
    if (same == old.end()) {
      found.push_back(name + " is new");
    } else if (same->second != digest) {
      found.push_back(name + " changed");
    }
  }
  for (const auto& [name, digest] : old) {
    if (!current.contains(name)) {
      found.push_back(name + " is gone");
    }
  }
  const auto of_part = [](const Json& record, const char* part) {
    Json kept = record.at("identity").at(part);
    if (std::string_view(part) == "settings") {  // prompts are for samples, and change no document
      std::erase_if(kept.get_ref<Json::array_t&>(), [](const Json& setting) {
        return setting.get<std::string>().starts_with("--prompt=");
      });
    }
    return kept;
  };
  for (const char* part : {"settings", "support", "scripts"}) {
    if (of_part(before, part) != of_part(now, part)) {
      found.push_back(std::string(part) == "settings"  ? "data.prepare changed"
                      : std::string(part) == "support" ? "the tokenizer or its template changed"
                                                       : "lorascale's scripts changed");
    }
  }
  constexpr std::size_t kShown = 4;
  std::string text;
  for (std::size_t i = 0; i < std::min(found.size(), kShown); ++i) {
    text += (i == 0 ? "" : ", ") + found[i];
  }
  return text + (found.size() > kShown ? ", ..." : "");
}

}  // namespace lorascale::prepare
