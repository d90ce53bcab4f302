// The log: rank 0 writes to the terminal, every rank to its own file once a run folder exists.
// Times are relative to the start of the program on the terminal and absolute in files.
#pragma once

#include <filesystem>
#include <string>

namespace lorascale {

// Sets spdlog's default logger. Ranks other than 0 stay silent on the terminal below `warn`.
void set_up_logging(int rank, const std::string& level = "info");

// "lorascale: MESSAGE" on stderr, each line of it: how every failure is told to the user, once.
void report_failure(const std::string& message);

// Adds a file sink; called when the run folder is known.
void log_to_file(const std::filesystem::path& path);

}  // namespace lorascale
