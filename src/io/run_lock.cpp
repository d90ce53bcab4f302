#include "io/run_lock.hpp"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "io/durable_file.hpp"

namespace lorascale::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kClaimPrefix = ".generation-";

std::string this_process() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) {
    host = {"unknown"};
  }
  return "process " + std::to_string(::getpid()) + " on " + host.data();
}

// What the owner wrote into the lock file; it may be another version's, so only printable text is
// shown.
std::string owner_text(const FileDescriptor& lock) {
  std::string text(200, '\0');
  const ssize_t count = ::pread(lock.get(), text.data(), text.size(), 0);
  text.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
  text.resize(std::min(text.find('\n'), text.size()));
  std::erase_if(text, [](char c) { return c < 0x20 || c == 0x7F; });
  return text.empty() ? "another process" : text;
}

std::int64_t claimed_generation(const std::string& name) {
  constexpr std::size_t kMostDigits = 18;
  const std::string digits = name.substr(kClaimPrefix.size());
  if (digits.empty() || digits.size() > kMostDigits ||
      digits.find_first_not_of("0123456789") != std::string::npos) {
    return 0;
  }
  return std::stoll(digits);
}

std::vector<std::int64_t> claims_in(const fs::path& folder) {
  std::vector<std::int64_t> claims;
  std::error_code failure;
  for (fs::directory_iterator entries(folder, failure);
       !failure && entries != fs::directory_iterator(); entries.increment(failure)) {
    const std::string name = entries->path().filename().string();
    if (name.starts_with(kClaimPrefix)) {
      claims.push_back(claimed_generation(name));
    }
  }
  if (failure) {
    throw_cannot_write(folder, failure.value());
  }
  return claims;
}

std::int64_t newest_claim(const fs::path& folder) {
  const std::vector<std::int64_t> claims = claims_in(folder);
  return claims.empty() ? 0 : *std::max_element(claims.begin(), claims.end());
}

fs::path claim_path(const fs::path& folder, std::int64_t generation) {
  return folder / (std::string(kClaimPrefix) + std::to_string(generation));
}

}  // namespace

RunLock::RunLock(fs::path run_folder) : folder_(std::move(run_folder)) {
  create_folders(folder_);
  take_lock();
  claim_generation();
}

void RunLock::take_lock() {
  const fs::path path = folder_ / ".lock";
  lock_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!lock_.is_open()) {
    throw_cannot_write(path, errno);
  }
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) {
      throw Error(ExitCode::kCannotWrite,
                  "run folder " + folder_.string() + " is in use by " + owner_text(lock_) +
                      ": wait for it, stop it, or choose another run.output_dir");
    }
    spdlog::warn("{} cannot be locked ({}): make sure that no second job uses this run folder",
                 path.string(), std::generic_category().message(errno));
    return;
  }
  const std::string owner = this_process() + "\n";
  if (::ftruncate(lock_.get(), 0) != 0) {
    throw_cannot_write(path, errno);
  }
  write_all(lock_, std::as_bytes(std::span(owner)), path);
}

void RunLock::claim_generation() {
  // Another process can only be claiming as well where locks do not work; O_EXCL lets one of the
  // two win.
  for (generation_ = newest_claim(folder_) + 1;; ++generation_) {
    const fs::path path = claim_path(folder_, generation_);
    FileDescriptor claim(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (claim.is_open()) {
      const std::string owner = this_process() + "\n";
      write_all(claim, std::as_bytes(std::span(owner)), path);
      sync_and_close(claim, path);
      sync_folder(folder_);
      break;
    }
    if (errno != EEXIST) {
      throw_cannot_write(path, errno);
    }
  }
  for (const std::int64_t older : claims_in(folder_)) {
    std::error_code ignored;
    if (older > 0 && older < generation_) {
      fs::remove(claim_path(folder_, older), ignored);
    }
  }
}

void RunLock::check_still_owner() const {
  const std::int64_t newest = newest_claim(folder_);
  if (newest == 0) {
    throw Error(ExitCode::kInternal, "run folder " + folder_.string() +
                                         " is gone, or was emptied, while the run was in it; it "
                                         "stops and writes nothing more");
  }
  if (newest != generation_) {
    throw Error(ExitCode::kInternal,
                "run folder " + folder_.string() + " was taken over by generation " +
                    std::to_string(newest) + " while this process is generation " +
                    std::to_string(generation_) + ": it stops and writes nothing more");
  }
}

}  // namespace lorascale::io
