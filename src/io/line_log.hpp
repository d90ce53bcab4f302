// A text file that grows by whole lines. A line that cannot be written (a full disk) is lost and
// counted, never torn: the file stays readable and later lines go on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "io/file_descriptor.hpp"

namespace lorascale::io {

class LineLog {
 public:
  // Appends to `path`. Error(kCannotWrite) where it cannot be opened.
  explicit LineLog(std::filesystem::path path);

  // `line` without its newline. False where it was lost.
  bool write(std::string_view line);
  [[nodiscard]] std::int64_t lost_lines() const { return lost_lines_; }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::int64_t lost_lines_ = 0;
};

}  // namespace lorascale::io
