// Runs a piece of code in a child process and, at its k-th system call that changes or opens a
// file, kills it or makes the call fail; or writes down the calls that make files durable. Uses
// ptrace; Linux on x86-64 only.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace lorascale::io {

enum class FaultKind {
  kKill,         // SIGKILL right before the call
  kFailOnce,     // the call returns `error_number` and does nothing
  kFailForGood,  // so do all later ones that write
  kShortWrite,   // a write writes half; other calls are left alone
};

struct Fault {
  int at = 0;  // counted from 1
  FaultKind kind = FaultKind::kKill;
  int error_number = 0;
};

struct FaultOutcome {
  bool traced = false;  // false where this system does not allow tracing
  bool hit = false;     // the k-th call was reached
  int exit_code = -1;   // what `child` returned; -1 where a signal ended it
  int signal = 0;
};

FaultOutcome run_with_fault(const std::function<int()>& child, const Fault& fault);

// A call in the order it was made: "write" and "fsync" of the file or folder `path`, "rename" of
// `path` to `target`.
struct FileCall {
  std::string name, path, target;
};

struct Recording {
  bool traced = false;
  int exit_code = -1;
  std::vector<FileCall> calls;
};

Recording record_file_calls(const std::function<int()>& child);

}  // namespace lorascale::io
