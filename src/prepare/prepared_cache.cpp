#include "prepare/prepared_cache.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/durable_file.hpp"
#include "io/strict_json.hpp"

namespace lorascale::prepare {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDigits = 16;  // of the digest: 64 bits
constexpr std::size_t kLongestStem = 40;
constexpr std::string_view kRecord = "prepared.json";

std::string clean(const std::string& stem) {
  std::string name;
  for (const char c : stem.substr(0, kLongestStem)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_';
    name += plain ? c : '_';
  }
  return name.empty() ? "data" : name;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) {
    host = {"unknown"};
  }
  return std::string(host.data()) + "-" + std::to_string(::getpid());
}

}  // namespace

PreparedCache::PreparedCache(fs::path root, const std::string& stem,
                             const nlohmann::ordered_json& identity)
    : root_(std::move(root)),
      folder_(root_ / (clean(stem) + "-" + sha256_hex(identity.dump()).substr(0, kDigits))),
      identity_(identity) {}

nlohmann::ordered_json PreparedCache::find() const {
  std::error_code ignored;
  if (!fs::exists(folder_ / kRecord, ignored)) {
    return nullptr;
  }
  auto record = io::read_ordered_json_file(folder_ / kRecord);
  if (!record.is_object() || record.value("identity", nlohmann::ordered_json()) != identity_) {
    throw_bad_input(folder_.string() + " is not what its name says; delete it");
  }
  const auto files = record.value("files", std::vector<std::string>());
  const bool whole = std::all_of(files.begin(), files.end(), [&](const std::string& name) {
    return fs::exists(folder_ / name, ignored);
  });
  return whole ? record : nullptr;
}

// Nothing where the file system has no locks.
io::FileDescriptor PreparedCache::lock(const KeepGoing& keep_going) {
  const auto path = root_ / ("." + folder_.filename().string() + ".lock");
  io::FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!file.is_open()) {
    io::throw_cannot_write(path, errno);
  }
  for (bool said = false; ::flock(file.get(), LOCK_EX | LOCK_NB) != 0; said = true) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return {};
    }
    if (!said) {
      spdlog::info("another run prepares {}; waiting for it", folder_.string());
    }
    if (!keep_going()) {
      throw Error(ExitCode::kStopped, "stopped on request while another run prepared " +
                                          folder_.string() + "; run it again");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return file;
}

// Of processes that were killed: only the holder of the lock may.
void PreparedCache::remove_leftovers() const {
  const std::string prefix = "." + folder_.filename().string() + ".part-";
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(root_, ignored)) {
    if (entry.path().filename().string().starts_with(prefix)) {
      fs::remove_all(entry.path(), ignored);
    }
  }
}

nlohmann::ordered_json PreparedCache::make(const Fill& fill, const KeepGoing& keep_going) {
  if (auto record = find(); !record.is_null()) {
    return record;
  }
  io::create_folders(root_);
  std::error_code ignored;
  const std::string name = "." + folder_.filename().string();
  const auto held = lock(keep_going);
  if (auto record = find(); !record.is_null()) {
    fs::remove(root_ / (name + ".lock"), ignored);  // made anew by who came after the first
    return record;
  }
  if (held.is_open()) {
    remove_leftovers();
  }
  if (fs::exists(folder_, ignored)) {
    spdlog::warn("{} has lost files and is made anew", folder_.string());
    fs::remove_all(folder_, ignored);
  }
  const auto part = root_ / (name + ".part-" + this_process());
  try {
    io::create_folders(part);
    nlohmann::ordered_json record = {{"identity", identity_}};
    record.update(fill(part));
    record["files"] = names_in(part);
    io::write_file_atomically(part / kRecord, std::string_view(record.dump(2) + "\n"));
    if (::rename(part.c_str(), folder_.c_str()) != 0) {
      const int cause = errno;
      const auto other = find();  // of a process that was faster, where there are no locks
      if (other.is_null()) {
        io::throw_cannot_write(folder_, cause);
      }
      record = other;
    }
    io::sync_folder(root_);
    fs::remove_all(part, ignored);
    fs::remove(root_ / (name + ".lock"), ignored);  // who waits for it finds the folder there
    return record;
  } catch (...) {
    fs::remove_all(part, ignored);  // the lock stays: those who wait for it share it
    throw;
  }
}

}  // namespace lorascale::prepare
