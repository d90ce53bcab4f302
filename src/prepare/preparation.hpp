// One file, one command: whatever data.train and data.validation name becomes token files before
// the data set is opened. What is a token file already is left alone; everything else is prepared
// by the script of its kind (preparer.hpp) as a child process, once for the same contents and
// settings (prepared_cache.hpp). Runs on one rank; what it does is said in the log.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/child_process.hpp"
#include "config/run_config.hpp"
#include "prepare/python.hpp"

namespace lorascale::prepare {

struct DataFiles {
  std::filesystem::path train;
  std::optional<std::filesystem::path> validation;
  // What was prepared: {"data.train": {"identity", "sources", "command", "report", "warnings"}};
  // empty where nothing was.
  nlohmann::ordered_json records = nlohmann::ordered_json::object();
};

// What can be said of the paths before anything is prepared: Error(kBadInput) where one that is no
// token file by its name is not there, or several are named of which one is a token file.
void require_sources(const config::RunConfig& config);

// The files as they are named, for configurations whose data is known to be token files.
DataFiles as_named(const config::RunConfig& config);

// `keep_going` is asked about ten times a second; false ends all with Error(kStopped), and nothing
// is kept. Error with the code of its cause where data cannot be prepared; where Python is missing,
// with the command that makes the token file elsewhere.
DataFiles prepare(const config::RunConfig& config, const KeepGoing& keep_going,
                  const FindPython& find = find_python);

// What differs between two records of the same setting, in words: "a.txt changed, b.txt is new".
// The prompts of samples do not count.
std::string difference(const nlohmann::ordered_json& before, const nlohmann::ordered_json& now);

}  // namespace lorascale::prepare
