// lorascale VERB ...: parse, dispatch, exit code.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>

#include "base/abrupt_end.hpp"
#include "base/error.hpp"
#include "base/logging.hpp"
#include "cli/report_once.hpp"
#include "cli/verbs.hpp"
#include "config/aliases.hpp"
#include "config/options.hpp"

namespace {

using lorascale::ExitCode;

void print_help() {
  std::cout
      << "lorascale: LoRA fine-tuning on any number of MPI ranks\n\nusage: lorascale VERB ...\n\n";
  for (const auto& verb : lorascale::cli::verbs()) {
    std::cout << "  " << verb.name << ' ' << verb.synopsis << "\n      " << verb.help << '\n';
  }
  std::cout << "\nSettings (in CONFIG.yaml, or --set key=value):\n"
            << lorascale::config::describe_options();
}

ExitCode dispatch(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    print_help();
    return ExitCode::kDone;
  }
  if (name == "--help-markdown") {  // docs/configuration.md
    std::cout
        << "# Configuration\n\nMade by `lorascale --help-markdown`. A run that goes on refuses a "
           "change of any setting but those that may change on resume.\n\n"
        << lorascale::config::describe_options(lorascale::config::ReferenceFormat::kMarkdown)
        << "\n"
        << "### Keys of other trainers\n\n"
        << "Taken at the top level of the file, and below `model_config:`, `training_config:` "
           "and the like. What becomes of each is said at the start.\n\n"
        << lorascale::config::describe_aliases();
    return ExitCode::kDone;
  }
  if (name == "--version") {
    std::cout << "lorascale " << LORASCALE_VERSION << '\n';
    return ExitCode::kDone;
  }
  for (const auto& verb : lorascale::cli::verbs()) {
    if (name == verb.name) {
      if (std::any_of(argv + 2, argv + argc, [](const std::string_view argument) {
            return argument == "--help" || argument == "-h";
          })) {
        std::cout << "usage: lorascale " << verb.name << ' ' << verb.synopsis << "\n\n"
                  << verb.help << ". Settings: lorascale --help\n";
        return ExitCode::kDone;
      }
      return verb.run({argv + 2, argv + argc});
    }
  }
  throw lorascale::Error(ExitCode::kUsage,
                         name.empty() ? "a verb is missing (see lorascale --help)"
                                      : "unknown verb '" + name + "' (see lorascale --help)");
}

// A device that waits for a lost peer may never come to rest, and what runs at the end of a process
// waits for it: then there is no such end.
int leave(ExitCode code) {
  if (code == ExitCode::kPeerLost || lorascale::end_abruptly) {
    spdlog::shutdown();
    std::cout.flush();
    std::fflush(nullptr);
    _exit(static_cast<int>(code));
  }
  return static_cast<int>(code);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes fails the write that meets it, not us
  try {
    const auto code = dispatch(argc, argv);
    if (!std::cout.flush()) {
      throw lorascale::Error(ExitCode::kCannotWrite,
                             "standard output cannot be written (a full disk, a closed pipe?)");
    }
    return static_cast<int>(code);
  } catch (const lorascale::ReportedError& error) {
    return leave(error.code());
  } catch (const lorascale::Error& error) {
    lorascale::cli::report_once(error);
    return leave(error.code());
  } catch (const std::exception& error) {
    lorascale::report_failure(std::string("internal error: ") + error.what());
    return leave(ExitCode::kInternal);
  }
}
