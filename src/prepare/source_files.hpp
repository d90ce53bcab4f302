// The files behind data.train and data.validation: which are data files already, what a folder
// holds, and digests of their contents.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/child_process.hpp"

namespace lorascale::prepare {

// Whether a path is to be opened as it is: HDF5 by its first bytes or its name, or not there at
// all, which opening it says best.
bool is_data_file(const std::filesystem::path& path);

// All regular files below a folder, in the order of their relative paths, without hidden ones.
// Error(kBadInput) where the folder cannot be read or holds more than a million. `keep_going` is
// asked now and then; false is Error(kStopped).
std::vector<std::filesystem::path> files_below(const std::filesystem::path& folder,
                                               const KeepGoing& keep_going);

// Asks it; Error(kStopped) where the answer is no. `path` is what was being read.
void require_going(const KeepGoing& keep_going, const std::filesystem::path& path);

// The name's ending in lower case, that of "a.jsonl.gz" being ".jsonl".
std::string kind_of_name(const std::filesystem::path& path);

// SHA-256 of the contents. `keep_going` is asked now and then; false is Error(kStopped).
std::string digest_of_file(const std::filesystem::path& path, const KeepGoing& keep_going);

}  // namespace lorascale::prepare
