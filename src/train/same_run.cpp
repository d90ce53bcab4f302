#include "train/same_run.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"
#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "config/yaml_tree.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/durable_file.hpp"
#include "train/data_preparation.hpp"

namespace lorascale::train {
namespace {

// What became another since the run began, where the training set was prepared from files then and
// now: " (a.txt changed)".
std::string change_of_data(const Run& run) {
  const auto key = "data.train";
  if (!run.session.files.records.contains(key)) {
    return {};
  }
  try {
    const auto before = read_data_record(run.folder);
    const auto what =
        prepare::difference(before.at("prepared").at(key), run.session.files.records.at(key));
    return what.empty() ? what : " (" + what + " since)";
  } catch (const nlohmann::json::exception&) {  // was made from a token file then, or edited
    return {};
  }
}

}  // namespace

void require_same_run(const Run& run, const SnapshotFields& saved) {
  const auto& session = run.session;
  const auto refuse = [&](const std::string& what) {
    throw_bad_config(fmt::format(
        "{} belongs to another run: {}; choose another run.output_dir, or run as {} says",
        run.folder.string(), what, (run.folder / "config.yaml").string()));
  };
  const auto before = config::read_config_text(saved.config, "the checkpoint").config;
  const auto changed = config::differences(before, session.config, config::Scope::kFixedOnResume);
  if (!changed.empty()) {
    refuse(config::to_string(changed));
  }
  const auto& data = session.workload->train();
  if (saved.data_fingerprint != data.fingerprint()) {
    if (const auto why = data.why_other(saved.data_fingerprint); !why.empty()) {
      throw_bad_config(run.folder.string() + " " + why);
    }
    refuse(fmt::format("the training set {} is not the one it began with{}",
                       session.config.data.train, change_of_data(run)));
  }
  if (saved.model_fingerprint != session.workload->model_fingerprint()) {
    refuse("the base model " + session.config.model.path + " is not the one it began with");
  }
}

// Of a run that starts from nothing: an earlier one in the folder may have died early, and is
// overwritten. What is a result is not, unless the same run makes it again.
void require_nothing_to_lose(const Run& run) {
  const auto& session = run.session;
  const auto refuse = [&](const std::string& why) {
    throw_bad_config(fmt::format("{} holds {}; choose another run.output_dir or remove it",
                                 run.folder.string(), why));
  };
  const auto file = run.folder / "config.yaml";
  const bool has_file = std::filesystem::is_regular_file(file);
  if (has_file && !config::is_resolved(io::read_file(file, config::kMaxConfigBytes))) {
    throw_bad_config(file.string() +
                     " was not written by a run, and this one would replace it; choose another "
                     "run.output_dir, or give that file another name");
  }
  const bool results = std::ranges::any_of(
      std::array{"adapter", "model", "best"},
      [&](const char* name) { return std::filesystem::is_directory(run.folder / name); });
  const bool anew = session.config.run.resume != config::Resume::kAuto;
  if (anew && (results || !io::list_checkpoints(run.folder / "checkpoints").empty())) {
    refuse("checkpoints or results of an earlier run, and run.resume is never");
  }
  if (!results) {
    return;
  }
  if (!has_file) {
    refuse("results (adapter/, best/ or model/) of an unknown origin");
  }
  const auto before = config::read_config_file(file).config;
  const auto changed = config::differences(before, session.config, config::Scope::kFixedOnResume);
  if (!changed.empty()) {
    refuse("results of another run, without its checkpoints: " + config::to_string(changed));
  }
  spdlog::warn("{} holds results of this run, but no checkpoint: it starts again from nothing",
               run.folder.string());
}

}  // namespace lorascale::train
