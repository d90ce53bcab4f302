#include "io/file_descriptor.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {
namespace {

const char* remedy_of(int error_number) {
  switch (error_number) {
    case ENOSPC:
      return "free space there or choose another folder";
    case EDQUOT:
      return "your quota is used up; delete files there or choose another folder";
    case EROFS:
      return "choose a folder on a writable file system";
    case EACCES:
    case EPERM:
      return "check owner and permissions";
    case EFBIG:
      return "raise the limit on file sizes (ulimit -f) or choose another file system";
    case EMFILE:
    case ENFILE:
      return "raise the limit on open files (ulimit -n)";
    case ENOENT:
    case ENOTDIR:
      return "check the path";
    case EIO:
      return "the storage failed; look at the system log and choose another disk";
    case ELOOP:
      return "remove the symbolic link";
    case EEXIST:
      return "remove it or choose another name";
    default:
      return nullptr;
  }
}

[[noreturn]] void throw_unreadable(const std::filesystem::path& path, int error_number) {
  throw_bad_input(path.string() + " cannot be read: " + describe_errno(error_number));
}

OpenedFile check_opened(int fd, const std::filesystem::path& path) {
  if (fd < 0) {
    throw_unreadable(path, errno);
  }
  OpenedFile file{FileDescriptor(fd), 0};
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    throw_unreadable(path, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    throw_bad_input(path.string() + " is " +
                    (S_ISDIR(status.st_mode) ? "a folder" : "no regular file") +
                    ", but a file is needed here: check the path");
  }
  file.bytes = static_cast<std::uint64_t>(status.st_size);
  return file;
}

}  // namespace

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  close();
}

int FileDescriptor::close() noexcept {
  if (fd_ < 0) {
    return 0;
  }
  // After EINTR Linux has released the descriptor all the same; closing again could hit another
  // file.
  const int result = ::close(std::exchange(fd_, -1));
  return result == 0 || errno == EINTR ? 0 : errno;
}

OpenedFile open_for_reading(const std::filesystem::path& path) {
  return check_opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK), path);
}

OpenedFile open_in_folder(const FileDescriptor& folder, const std::string& name,
                          const std::filesystem::path& shown_path) {
  LS_ASSERT(is_plain_file_name(name));
  return check_opened(
      ::openat(folder.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW),
      shown_path);
}

void read_exactly(const FileDescriptor& file, std::uint64_t offset,
                  std::span<std::byte> destination, const std::filesystem::path& shown_path) {
  while (!destination.empty()) {
    const ssize_t count =
        ::pread(file.get(), destination.data(), destination.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      throw_unreadable(shown_path, errno);
    }
    if (count == 0) {
      throw_bad_input(shown_path.string() +
                      " became shorter while it was being read (it ends at byte " +
                      std::to_string(offset) + "): let nothing write to it, then run again");
    }
    offset += static_cast<std::uint64_t>(count);
    destination = destination.subspan(static_cast<std::size_t>(count));
  }
}

std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  const OpenedFile file = open_for_reading(path);
  if (file.bytes > max_bytes) {
    throw_bad_input(path.string() + " has " + std::to_string(file.bytes) +
                    " bytes, more than the " + std::to_string(max_bytes) +
                    " allowed for such a file: check that it is the right one");
  }
  std::string text(file.bytes, '\0');
  read_exactly(file.descriptor, 0, std::as_writable_bytes(std::span(text)), path);
  return text;
}

std::string describe_errno(int error_number) {
  std::string text = std::generic_category().message(error_number);
  if (const char* remedy = remedy_of(error_number)) {
    text += std::string(": ") + remedy;
  }
  return text;
}

}  // namespace lorascale::io
