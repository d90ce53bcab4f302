#include "cli/report_once.hpp"

#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <thread>

#include "base/logging.hpp"
#include "comm/launcher.hpp"

namespace lorascale::cli {
namespace {

constexpr std::chrono::seconds kPatience(5);

volatile std::sig_atomic_t code_of_the_end = 0;

void end_now(int) {
  _exit(code_of_the_end);
}

}  // namespace

void report_once(const Error& error) {
  const int rank = comm::read_launcher(std::getenv).rank.value_or(0);
  const bool of_all = error.code() == ExitCode::kUsage || error.code() == ExitCode::kBadConfig;
  if (rank == 0 || !of_all) {
    report_failure(error.what());
    return;
  }
  code_of_the_end = static_cast<int>(error.code());
  std::signal(SIGTERM, end_now);
  std::this_thread::sleep_for(kPatience);
  if (error.code() != ExitCode::kUsage) {  // all ranks have the same command line
    report_failure("rank " + std::to_string(rank) + ": " + error.what());
  }
}

}  // namespace lorascale::cli
