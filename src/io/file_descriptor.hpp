// An owned POSIX file descriptor, and the checked ways to open and read a file. Files are read,
// never mapped: a mapped file that shrinks would end the program with SIGBUS. Failures are
// Error(kBadInput) with the path and what to do. Positions and sizes are in bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace lorascale::io {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool is_open() const noexcept { return fd_ >= 0; }
  // Returns 0 or the errno of close(), which is where some file systems report a failed write.
  int close() noexcept;

 private:
  int fd_ = -1;
};

struct OpenedFile {
  FileDescriptor descriptor;
  std::uint64_t bytes = 0;  // at the time of opening
};

// Opens a regular file; symbolic links are followed. Never blocks on a FIFO or a device.
OpenedFile open_for_reading(const std::filesystem::path& path);

// Opens the regular file `name` inside an open folder without following a symbolic link. `name`
// must be a plain file name (is_plain_file_name); `shown_path` is for messages.
OpenedFile open_in_folder(const FileDescriptor& folder, const std::string& name,
                          const std::filesystem::path& shown_path);

// Fills `destination` from `offset` on. Throws where the file ends before that, which means that it
// was changed while in use.
void read_exactly(const FileDescriptor& file, std::uint64_t offset,
                  std::span<std::byte> destination, const std::filesystem::path& shown_path);

// The whole file as text. Throws where it is larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes);

// "No space left on device: free space there or choose another folder", for a value of errno.
std::string describe_errno(int error_number);

}  // namespace lorascale::io
