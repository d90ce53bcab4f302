#include "io/line_log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "io/durable_file.hpp"

namespace lorascale::io {

LineLog::LineLog(std::filesystem::path path) : path_(std::move(path)) {
  // O_NONBLOCK: a pipe in the file's place must not hang the run.
  const int file =
      open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644);
  if (file < 0) {
    throw_cannot_write(path_, errno);
  }
  file_ = FileDescriptor(file);
}

bool LineLog::write(std::string_view line) {
  const std::string text = std::string(line) + "\n";
  const off_t before = lseek(file_.get(), 0, SEEK_END);
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = ::write(file_.get(), text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written <= 0) {
      ++lost_lines_;
      // Where even this fails, the reader meets one torn line.
      if (const int error = errno; before < 0 || ftruncate(file_.get(), before) != 0) {
        errno = error;  // the first cause is the one to report
      }
      return false;
    }
    done += static_cast<std::size_t>(written);
  }
  return true;
}

}  // namespace lorascale::io
