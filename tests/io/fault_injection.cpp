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
#include <string_view>

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
constexpr std::size_t kThirdArgument = offsetof(user_regs_struct, rdx);

// Pipes and terminals are left alone: the log goes there, and sanitizers probe memory through a
// pipe.
bool writes_elsewhere(pid_t pid, long number) {
  if (number != SYS_write) {
    return false;
  }
  std::array<char, 16> target{};
  const std::string link =
      "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(peek(pid, kFirstArgument));
  return ::readlink(link.c_str(), target.data(), target.size()) <= 0 || target[0] != '/' ||
         std::string_view(target.data(), 5) == "/dev/";
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

FaultOutcome follow(pid_t pid, const Fault& fault) {
  FaultOutcome outcome;
  Injector injector(pid, fault);
  int status = 0;
  bool inside = false;
  while (::waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
    int deliver = 0;
    if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
      inside = !inside;
      inside ? injector.on_entry() : injector.on_exit();
    } else if (!outcome.traced && WSTOPSIG(status) == SIGSTOP) {
      outcome.traced = true;
      ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    } else {
      deliver = WSTOPSIG(status);
    }
    ::ptrace(PTRACE_SYSCALL, pid, nullptr, deliver);
  }
  outcome.hit = injector.hit();
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return outcome;
}

}  // namespace

FaultOutcome run_with_fault(const std::function<int()>& child, const Fault& fault) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
      ::_exit(125);
    }
    ::raise(SIGSTOP);
    ::_exit(child());
  }
  return follow(pid, fault);
}
#else
FaultOutcome run_with_fault(const std::function<int()>& /*child*/, const Fault& /*fault*/) {
  return {};
}
#endif

}  // namespace lorascale::io
