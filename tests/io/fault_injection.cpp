#include "fault_injection.hpp"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <utility>

namespace lorascale::io {

#ifdef __x86_64__
namespace {

constexpr std::array kWritingCalls{SYS_write,     SYS_pwrite64, SYS_fsync,    SYS_fallocate,
                                   SYS_ftruncate, SYS_rename,   SYS_renameat, SYS_renameat2,
                                   SYS_mkdir,     SYS_mkdirat};
constexpr std::array kOtherCalls{SYS_openat, SYS_open,     SYS_close,
                                 SYS_unlink, SYS_unlinkat, SYS_rmdir};

template <class List>
bool contains(const List& list, long number) {
  return std::find(list.begin(), list.end(), number) != list.end();
}

unsigned long long peek(pid_t pid, std::size_t offset) {
  return static_cast<unsigned long long>(::ptrace(PTRACE_PEEKUSER, pid, offset, nullptr));
}

void poke(pid_t pid, std::size_t offset, unsigned long long value) {
  ::ptrace(PTRACE_POKEUSER, pid, offset, value);
}

constexpr std::size_t kFirstArgument = offsetof(user_regs_struct, rdi);
constexpr std::size_t kNumber = offsetof(user_regs_struct, orig_rax);
constexpr std::size_t kResult = offsetof(user_regs_struct, rax);
constexpr std::size_t kSecondArgument = offsetof(user_regs_struct, rsi);
constexpr std::size_t kThirdArgument = offsetof(user_regs_struct, rdx);
constexpr std::size_t kFourthArgument = offsetof(user_regs_struct, r10);

// What the descriptor in the first argument stands for.
std::string descriptor_path(pid_t pid) {
  std::array<char, 4096> target{};
  const std::string link =
      "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(peek(pid, kFirstArgument));
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  return {target.data(), static_cast<std::size_t>(std::max<ssize_t>(0, length))};
}

// Pipes and terminals are left alone: the log goes there, and sanitizers probe memory through a
// pipe.
bool is_on_disk(const std::string& path) {
  return path.starts_with("/") && !path.starts_with("/dev/");
}
bool writes_elsewhere(pid_t pid, long number) {
  return number == SYS_write && !is_on_disk(descriptor_path(pid));
}

std::string text_at(pid_t pid, std::size_t argument) {
  std::string text;
  for (auto address = peek(pid, argument);; ++address) {
    const auto word = static_cast<unsigned long>(::ptrace(PTRACE_PEEKDATA, pid, address, nullptr));
    const char c = static_cast<char>(word & 0xFF);
    if (c == '\0' || text.size() > 4096) {
      return text;
    }
    text.push_back(c);
  }
}

class Injector {
 public:
  Injector(pid_t pid, const Fault& fault) : pid_(pid), fault_(fault) {}

  void on_entry() {
    const long number = static_cast<long>(peek(pid_, kNumber));
    const bool writes = contains(kWritingCalls, number);
    if ((!writes && !contains(kOtherCalls, number)) || writes_elsewhere(pid_, number)) {
      return;
    }
    ++count_;
    hit_ = hit_ || count_ == fault_.at;
    if (count_ == fault_.at && fault_.kind == FaultKind::kKill) {
      ::kill(pid_, SIGKILL);
    } else if (count_ == fault_.at && fault_.kind == FaultKind::kShortWrite) {
      if (number == SYS_write) {
        poke(pid_, kThirdArgument, (peek(pid_, kThirdArgument) + 1) / 2);
      }
    } else if ((count_ == fault_.at && fault_.kind != FaultKind::kShortWrite) ||
               (count_ > fault_.at && fault_.kind == FaultKind::kFailForGood && writes)) {
      poke(pid_, kNumber, ~0ULL);  // no such call: nothing happens
      failing_ = true;
    }
  }

  void on_exit() {
    if (failing_) {
      poke(pid_, kResult,
           static_cast<unsigned long long>(-static_cast<long long>(fault_.error_number)));
      failing_ = false;
    }
  }

  [[nodiscard]] bool hit() const { return hit_; }

 private:
  pid_t pid_;
  Fault fault_;
  int count_ = 0;
  bool hit_ = false;
  bool failing_ = false;
};

class Recorder {
 public:
  explicit Recorder(pid_t pid) : pid_(pid) {}

  void on_entry() {
    switch (static_cast<long>(peek(pid_, kNumber))) {
      case SYS_write:
      case SYS_pwrite64:
        if (const auto path = descriptor_path(pid_); is_on_disk(path)) {
          calls.push_back({"write", path, ""});
        }
        break;
      case SYS_fsync:
        calls.push_back({"fsync", descriptor_path(pid_), ""});
        break;
      case SYS_rename:
        calls.push_back({"rename", text_at(pid_, kFirstArgument), text_at(pid_, kSecondArgument)});
        break;
      case SYS_renameat:
      case SYS_renameat2:
        calls.push_back({"rename", text_at(pid_, kSecondArgument), text_at(pid_, kFourthArgument)});
        break;
      default:
        break;
    }
  }
  void on_exit() {}

  std::vector<FileCall> calls;

 private:
  pid_t pid_;
};

template <class Observer>
FaultOutcome follow(pid_t pid, Observer& observer) {
  FaultOutcome outcome;
  int status = 0;
  bool inside = false;
  while (::waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
    int deliver = 0;
    if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
      inside = !inside;
      inside ? observer.on_entry() : observer.on_exit();
    } else if (!outcome.traced && WSTOPSIG(status) == SIGSTOP) {
      outcome.traced = true;
      ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    } else {
      deliver = WSTOPSIG(status);
    }
    ::ptrace(PTRACE_SYSCALL, pid, nullptr, deliver);
  }
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return outcome;
}

pid_t start_traced(const std::function<int()>& child) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
      ::_exit(125);
    }
    ::raise(SIGSTOP);
    ::_exit(child());
  }
  return pid;
}

}  // namespace

FaultOutcome run_with_fault(const std::function<int()>& child, const Fault& fault) {
  const pid_t pid = start_traced(child);
  Injector injector(pid, fault);
  FaultOutcome outcome = follow(pid, injector);
  outcome.hit = injector.hit();
  return outcome;
}

Recording record_file_calls(const std::function<int()>& child) {
  const pid_t pid = start_traced(child);
  Recorder recorder(pid);
  const FaultOutcome outcome = follow(pid, recorder);
  return {outcome.traced, outcome.exit_code, std::move(recorder.calls)};
}
#else
FaultOutcome run_with_fault(const std::function<int()>& /*child*/, const Fault& /*fault*/) {
  return {};
}
Recording record_file_calls(const std::function<int()>& /*child*/) {
  return {};
}
#endif

}  // namespace lorascale::io
