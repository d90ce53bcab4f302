#include "base/child_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <optional>
#include <thread>

#include "base/error.hpp"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX leaves it to the program

namespace lorascale {
namespace {

constexpr std::size_t kMaxLine = std::size_t{64} << 10;
constexpr int kPollMilliseconds = 100;
constexpr std::chrono::seconds kGrace{10};

[[noreturn]] void throw_system(const std::string& call, int error_number) {
  throw Error(ExitCode::kInternal, call + " failed: " + std::strerror(error_number));
}

// The reading end of a pipe, cut into lines.
class LineReader {
 public:
  explicit LineReader(ChildStream stream) : stream_(stream) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      throw_system("pipe2", errno);
    }
    read_ = ends[0];
    write_ = ends[1];
    ::fcntl(read_, F_SETFL, O_NONBLOCK);
  }
  ~LineReader() {
    close(read_);
    close(write_);
  }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  [[nodiscard]] int fd() const { return read_; }
  [[nodiscard]] int child_end() const { return write_; }
  void close_child_end() { close(write_); }

  // Takes what there is; closes at the end.
  void read_some(const OnChildLine& on_line) {
    std::array<char, 8192> bytes{};
    for (;;) {
      const ssize_t count = ::read(read_, bytes.data(), bytes.size());
      if (count > 0) {
        take(std::string_view(bytes.data(), static_cast<std::size_t>(count)), on_line);
      } else if (count < 0 && errno == EINTR) {
        continue;
      } else {
        if (count == 0 || errno != EAGAIN) {
          finish(on_line);
        }
        return;
      }
    }
  }
  void finish(const OnChildLine& on_line) {
    close(read_);
    end_line(on_line);
  }

 private:
  static void close(int& fd) {
    if (fd >= 0) {
      ::close(fd);
    }
    fd = -1;
  }
  void take(std::string_view text, const OnChildLine& on_line) {
    for (const char c : text) {
      if (c == '\n' || c == '\r') {
        end_line(on_line);
      } else if (line_.size() < kMaxLine) {
        line_ += c;
      }
    }
  }
  void end_line(const OnChildLine& on_line) {
    if (!line_.empty()) {
      const std::string line = std::move(line_);
      line_.clear();
      on_line(stream_, line);
    }
  }

  ChildStream stream_;
  int read_ = -1;
  int write_ = -1;
  std::string line_;
};

// posix_spawn's two objects, with what every child gets.
class Setup {
 public:
  Setup(int output, int error) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, error, STDERR_FILENO);
    posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1);  // MPI's, among others
    posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    sigemptyset(&none);
    sigemptyset(&all);
    for (const int signal :
         {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGXFSZ, SIGCHLD}) {
      sigaddset(&all, signal);
    }
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~Setup() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  Setup(const Setup&) = delete;
  Setup& operator=(const Setup&) = delete;

  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
};

std::vector<std::string> environment_of(const ChildCommand& command) {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const auto name = text.substr(0, text.find('='));
    bool replaced = false;
    for (const auto& [key, value] : command.environment) {
      replaced = replaced || key == name;
    }
    if (!replaced) {
      entries.emplace_back(text);
    }
  }
  for (const auto& [key, value] : command.environment) {
    entries.push_back(key + "=" + value);
  }
  return entries;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (auto& text : texts) {
    pointers.push_back(text.data());
  }
  pointers.push_back(nullptr);
  return pointers;
}

// The running child; killed with all it started where it is left behind.
class Child {
 public:
  explicit Child(pid_t process) : process_(process) {}
  ~Child() {
    if (!status_) {
      signal_all(SIGKILL);
      int ignored = 0;
      while (::waitpid(process_, &ignored, 0) < 0 && errno == EINTR) {
      }
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void signal_all(int signal) const { ::kill(-process_, signal); }
  // Whether it has ended.
  bool ended() {
    if (status_) {
      return true;
    }
    int status = 0;
    const pid_t found = ::waitpid(process_, &status, WNOHANG);
    if (found == process_) {
      status_ = status;
    } else if (found < 0 && errno != EINTR) {
      const int error_number = errno;
      status_ = 0;  // nobody to wait for
      throw_system("waitpid", error_number);
    }
    return status_.has_value();
  }
  [[nodiscard]] ChildOutcome outcome() const {
    ChildOutcome outcome;
    if (WIFSIGNALED(*status_)) {
      outcome.signal = WTERMSIG(*status_);
    } else {
      outcome.exit_code = WEXITSTATUS(*status_);
    }
    return outcome;
  }

 private:
  pid_t process_;
  std::optional<int> status_;
};

pid_t spawn(const ChildCommand& command, const LineReader& output, const LineReader& error) {
  LS_ASSERT(!command.arguments.empty());
  auto arguments = command.arguments;
  auto environment = environment_of(command);
  const Setup setup(output.child_end(), error.child_end());
  pid_t process = 0;
  const int code =
      ::posix_spawnp(&process, arguments.front().c_str(), &setup.actions_, &setup.attributes_,
                     pointers_to(arguments).data(), pointers_to(environment).data());
  if (code != 0) {
    throw_bad_input(arguments.front() + " cannot be started: " + std::strerror(code) +
                    "; check the path and its permissions");
  }
  return process;
}

void wait_for_output(const LineReader& output, const LineReader& error) {
  std::array<pollfd, 2> waiting = {pollfd{output.fd(), POLLIN, 0}, pollfd{error.fd(), POLLIN, 0}};
  if (output.fd() < 0 && error.fd() < 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  } else {
    ::poll(waiting.data(), waiting.size(), kPollMilliseconds);  // negative ones are passed over
  }
}

}  // namespace

ChildOutcome run_child(const ChildCommand& command, const OnChildLine& on_line,
                       const KeepGoing& keep_going) {
  using Clock = std::chrono::steady_clock;
  LineReader output(ChildStream::kOutput), error(ChildStream::kError);
  Child child(spawn(command, output, error));
  output.close_child_end();
  error.close_child_end();
  std::optional<Clock::time_point> stopped;
  auto asked = Clock::now();
  for (bool ended = false; !ended;) {
    wait_for_output(output, error);
    ended = child.ended();  // before the last look at its output
    for (LineReader* reader : {&output, &error}) {
      if (reader->fd() >= 0) {
        reader->read_some(on_line);
      }
    }
    if (const auto now = Clock::now();
        now - asked >= std::chrono::milliseconds(kPollMilliseconds)) {
      asked = now;
      const bool wanted = keep_going();  // asked to the end: it may tell others that this goes on
      if (!stopped && !wanted) {
        stopped = now;
        child.signal_all(SIGINT);
      } else if (stopped && now - *stopped > kGrace) {
        child.signal_all(SIGKILL);
      }
    }
  }
  for (LineReader* reader : {&output, &error}) {
    if (reader->fd() >= 0) {  // one that the child left behind holds it open
      child.signal_all(SIGKILL);
      reader->finish(on_line);
    }
  }
  auto outcome = child.outcome();
  outcome.stopped = stopped.has_value();
  return outcome;
}

std::string shell_command(const std::vector<std::string>& arguments) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  std::string out;
  for (const auto& argument : arguments) {
    out += out.empty() ? "" : " ";
    if (!argument.empty() && argument.find_first_not_of(kPlain) == std::string::npos) {
      out += argument;
      continue;
    }
    out += "'";
    for (const char c : argument) {
      out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    }
    out += "'";
  }
  return out;
}

}  // namespace lorascale
