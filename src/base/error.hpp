// Failures and the exit codes they end in. Three kinds:
//   user error             throw Error(exit code of the cause, message with the remedy)
//   library, system error  throw Error(ExitCode::kInternal or kCannotWrite, message with call, path
//   and errno text) our own bug            LS_ASSERT, which aborts
// main() prints the message, a line per problem, and ends with the code. Destructors never throw.
#pragma once

#include <stdexcept>
#include <string>

namespace lorascale {

// The codes follow sysexits.h where it has one; scripts and SLURM wrappers rely on them.
enum class ExitCode : int {
  kDone = 0,
  kUsage = 64,        // wrong command line
  kBadInput = 65,     // a file is missing, damaged or of the wrong kind; no checkpoint can be read
  kInternal = 70,     // a bug, or a system call that should not fail
  kDiverged = 71,     // loss or parameters are not finite
  kCannotWrite = 73,  // a checkpoint or result cannot be written, or the run folder is taken
  kStopped = 75,      // stopped on request after saving; run again to go on
  kBadConfig = 78,    // the configuration contradicts itself or the machine
  kHang = 86,         // the watchdog saw no progress
  kPeerLost = 87,     // another rank or its communicator is gone
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

// The same failure on every rank of a job, already reported once for all of them.
class ReportedError : public Error {
 public:
  using Error::Error;
};

// Shorthands for the two causes that users can mend.
[[noreturn]] void throw_bad_input(const std::string& message);
[[noreturn]] void throw_bad_config(const std::string& message);

[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);

}  // namespace lorascale

// For conditions that only a bug of ours can break; input is checked with Error.
#define LS_ASSERT(condition)                                         \
  do {                                                               \
    if (!(condition)) [[unlikely]] {                                 \
      ::lorascale::assertion_failed(#condition, __FILE__, __LINE__); \
    }                                                                \
  } while (false)
