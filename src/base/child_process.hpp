// Another program as a child: started without a shell and without fork's handlers (which MPI's
// libraries do not like), with nothing to read, its output taken line by line. It is a process
// group of its own, so a Ctrl-C reaches it through this process only, and all of it can be ended.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorascale {

struct ChildCommand {
  std::vector<std::string> arguments;  // the program first: a path, or a name looked for in PATH
  std::vector<std::pair<std::string, std::string>> environment;  // over this process's own
};

struct ChildOutcome {
  int exit_code = 0;     // of a child that ended by itself
  int signal = 0;        // that ended it; 0: none
  bool stopped = false;  // by `keep_going`
};

enum class ChildStream { kOutput, kError };
// A line without its end ('\n' or '\r'), cut after 64 KiB. `text` lives until the call returns.
using OnChildLine = std::function<void(ChildStream, std::string_view text)>;
// Asked about ten times a second until the end; false ends the child: SIGINT, and SIGKILL ten
// seconds later.
using KeepGoing = std::function<bool()>;

// Runs it to its end. Where a callback throws, the child is killed and the exception goes on. A
// program that cannot be started is Error(kBadInput).
ChildOutcome run_child(const ChildCommand& command, const OnChildLine& on_line,
                       const KeepGoing& keep_going);

// The command as a POSIX shell takes it.
std::string shell_command(const std::vector<std::string>& arguments);

}  // namespace lorascale
