#include "prepare/source_files.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <system_error>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/file_descriptor.hpp"

namespace lorascale::prepare {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kHdf5Signature = "\x89HDF\r\n\x1a\n";
constexpr std::size_t kMostFiles = 1'000'000;
constexpr std::size_t kBlock = std::size_t{4} << 20;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

bool is_hidden(const fs::path& path) {
  return path.filename().string().starts_with(".");
}

}  // namespace

bool is_data_file(const fs::path& path) {
  std::error_code ignored;
  const auto status = fs::status(path, ignored);
  if (fs::is_directory(status)) {
    return false;
  }
  const std::string kind = kind_of_name(path);
  if (kind == ".h5" || kind == ".hdf5" || !fs::is_regular_file(status)) {
    return true;
  }
  std::string head(kHdf5Signature.size(), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  return !file.bad() && head == kHdf5Signature;
}

void require_going(const KeepGoing& keep_going, const fs::path& path) {
  if (!keep_going()) {
    throw Error(ExitCode::kStopped,
                "stopped on request while " + path.string() + " was read; run it again");
  }
}

std::vector<fs::path> files_below(const fs::path& folder, const KeepGoing& keep_going) {
  std::vector<fs::path> files;
  std::error_code failure;
  fs::recursive_directory_iterator entries(folder, fs::directory_options::follow_directory_symlink,
                                           failure);
  for (; !failure && entries != fs::recursive_directory_iterator(); entries.increment(failure)) {
    require_going(keep_going, folder);
    std::error_code ignored;
    if (is_hidden(entries->path())) {
      if (entries->is_directory(ignored)) {
        entries.disable_recursion_pending();
      }
      continue;
    }
    if (entries.depth() > 32) {  // a link that leads back to a folder above it
      throw_bad_input(folder.string() + ": more than 32 folders lie in each other; name the files");
    }
    if (entries->is_regular_file(ignored)) {
      files.push_back(entries->path());
    }
    if (files.size() > kMostFiles) {
      throw_bad_input(folder.string() + " holds more than a million files; join them");
    }
  }
  if (failure) {
    throw_bad_input(folder.string() + ": cannot be read (" + failure.message() +
                    "); check its permissions");
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string kind_of_name(const fs::path& path) {
  const auto name = path.filename();
  const std::string ending = lower(name.extension().string());
  return ending == ".gz" ? lower(name.stem().extension().string()) : ending;
}

std::string digest_of_file(const fs::path& path, const KeepGoing& keep_going) {
  const auto file = io::open_for_reading(path);
  Sha256 hash;
  std::vector<std::byte> block(kBlock);
  for (std::uint64_t at = 0; at < file.bytes; at += block.size()) {
    block.resize(static_cast<std::size_t>(std::min<std::uint64_t>(kBlock, file.bytes - at)));
    io::read_exactly(file.descriptor, at, block, path);
    hash.update(std::span<const std::byte>(block));
    require_going(keep_going, path);
  }
  return hash.hex();
}

}  // namespace lorascale::prepare
