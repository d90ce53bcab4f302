#include "io/durable_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "base/heartbeat.hpp"

namespace lorascale::io {
namespace {

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

// Unique among the processes of a host and the threads of a process; O_EXCL catches the rest.
std::filesystem::path temporary_beside(const std::filesystem::path& target) {
  static std::atomic<std::uint64_t> counter{0};
  return folder_of(target) /
         ("." + target.filename().string() + ".tmp-" + std::to_string(::getpid()) + "-" +
          std::to_string(counter.fetch_add(1)));
}

bool is_unsupported(int error_number) {
  return error_number == EOPNOTSUPP || error_number == EINVAL || error_number == ENOSYS;
}

}  // namespace

void throw_cannot_write(const std::filesystem::path& path, int error_number) {
  throw Error(ExitCode::kCannotWrite,
              path.string() + " cannot be written: " + describe_errno(error_number));
}

void create_folders(const std::filesystem::path& folder) {
  std::error_code failure;
  std::filesystem::create_directories(folder, failure);
  if (failure) {
    throw_cannot_write(folder, failure.value());
  }
}

FileDescriptor create_file(const std::filesystem::path& path) {
  FileDescriptor file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!file.is_open()) {
    throw_cannot_write(path, errno);
  }
  return file;
}

void write_all(const FileDescriptor& file, std::span<const std::byte> data,
               const std::filesystem::path& shown_path) {
  while (!data.empty()) {
    beat("writing files");
    const ssize_t count = ::write(file.get(), data.data(), data.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      throw_cannot_write(shown_path, count < 0 ? errno : EIO);
    }
    data = data.subspan(static_cast<std::size_t>(count));
  }
}

void reserve_space(const FileDescriptor& file, std::uint64_t bytes,
                   const std::filesystem::path& shown_path) {
  if (bytes == 0) {
    return;
  }
  int result = 0;
  do {
    result = ::fallocate(file.get(), 0, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && !is_unsupported(errno)) {
    throw_cannot_write(shown_path, errno);
  }
}

void sync_and_close(FileDescriptor& file, const std::filesystem::path& shown_path) {
  if (::fsync(file.get()) != 0) {
    throw_cannot_write(shown_path, errno);
  }
  if (const int error_number = file.close(); error_number != 0) {
    throw_cannot_write(shown_path, error_number);
  }
}

void sync_folder(const std::filesystem::path& folder) {
  const FileDescriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.is_open() || (::fsync(file.get()) != 0 && !is_unsupported(errno))) {
    throw_cannot_write(folder, errno);
  }
}

AtomicFile::AtomicFile(std::filesystem::path target)
    : target_(std::move(target)), temporary_(temporary_beside(target_)) {
  if (!target_.has_filename()) {
    throw Error(ExitCode::kCannotWrite, target_.string() + " names no file: add a file name");
  }
  file_ = create_file(temporary_);
}

AtomicFile::~AtomicFile() {
  if (!committed_ && ::unlink(temporary_.c_str()) != 0 && errno != ENOENT) {
    std::fprintf(stderr, "warning: %s could not be removed\n", temporary_.c_str());
  }
}

void AtomicFile::commit() {
  LS_ASSERT(!committed_);
  sync_and_close(file_, target_);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    throw_cannot_write(target_, errno);
  }
  committed_ = true;
  sync_folder(folder_of(target_));
}

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> data) {
  AtomicFile file(path);
  file.reserve(data.size());
  file.write(data);
  file.commit();
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
  write_file_atomically(path, std::as_bytes(std::span(text)));
}

}  // namespace lorascale::io
