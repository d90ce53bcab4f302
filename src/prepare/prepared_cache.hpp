// Prepared data on disk: a folder for each (contents, settings), whole or not there. Several runs
// may make the same one at once: they wait for each other where the file system has locks, and
// where it has none the first to finish wins.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/child_process.hpp"
#include "io/file_descriptor.hpp"

namespace lorascale::prepare {

class PreparedCache {
 public:
  // `stem` begins the folder's name, for people; `identity` is what the data depends on, and all.
  PreparedCache(std::filesystem::path root, const std::string& stem,
                const nlohmann::ordered_json& identity);

  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }
  // The record of a folder that is there and whole, with the names of its "files"; null otherwise.
  [[nodiscard]] nlohmann::ordered_json find() const;

  // Makes it: `fill` writes the files into the folder it is given and returns the record. Where
  // another process does so already, that is waited for. Returns the record of what is there then.
  using Fill = std::function<nlohmann::ordered_json(const std::filesystem::path& folder)>;
  nlohmann::ordered_json make(const Fill& fill, const KeepGoing& keep_going);

 private:
  io::FileDescriptor lock(const KeepGoing& keep_going);
  void remove_leftovers() const;

  std::filesystem::path root_;
  std::filesystem::path folder_;
  nlohmann::ordered_json identity_;
};

}  // namespace lorascale::prepare
