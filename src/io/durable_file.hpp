// Writing files that must survive a crash: every write, fsync, close and rename is checked, and a
// failure is Error(kCannotWrite) with the path, the cause and the remedy. A failed fsync is final
// for its file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "io/file_descriptor.hpp"

namespace lorascale::io {

[[noreturn]] void throw_cannot_write(const std::filesystem::path& path, int error_number);

// Creates a folder and those above it, where they do not exist.
void create_folders(const std::filesystem::path& folder);

// Creates a file that must not exist yet (never through a symbolic link).
FileDescriptor create_file(const std::filesystem::path& path);

void write_all(const FileDescriptor& file, std::span<const std::byte> data,
               const std::filesystem::path& shown_path);

// Claims disk space beforehand, so that a full disk is noticed before the first byte. Does nothing
// on file systems that cannot.
void reserve_space(const FileDescriptor& file, std::uint64_t bytes,
                   const std::filesystem::path& shown_path);

// fsync, then close.
void sync_and_close(FileDescriptor& file, const std::filesystem::path& shown_path);

// Makes the names in a folder durable. Does nothing on file systems that cannot.
void sync_folder(const std::filesystem::path& folder);

// Replaces `target` as one step: readers see the old file or the new one, also after a power cut.
// The bytes go to a hidden file beside it; without commit() that file is removed again.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void reserve(std::uint64_t bytes) { reserve_space(file_, bytes, target_); }
  void write(std::span<const std::byte> data) { write_all(file_, data, target_); }
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  FileDescriptor file_;
  bool committed_ = false;
};

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> data);
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

}  // namespace lorascale::io
