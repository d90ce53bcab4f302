#include "base/logging.hpp"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>
#include <string>

#include "base/error.hpp"

namespace lorascale {

void set_up_logging(int rank, const std::string& level) {
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  const auto wanted = spdlog::level::from_str(level);
  sink->set_level(rank == 0 ? wanted : spdlog::level::warn);
  auto logger = std::make_shared<spdlog::logger>("lorascale", sink);
  logger->set_level(wanted);
  sink->set_pattern(rank == 0 ? "%H:%M:%S %^%l%$ %v"
                              : "%H:%M:%S %^%l%$ [rank " + std::to_string(rank) + "] %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

void report_failure(const std::string& message) {
  std::string lines = "lorascale: " + message;
  for (std::size_t at = lines.find('\n'); at != std::string::npos; at = lines.find('\n', at + 1)) {
    lines.insert(at + 1, "lorascale: ");
  }
  std::fprintf(stderr, "%s\n", lines.c_str());
  std::fflush(stderr);
}

void log_to_file(const std::filesystem::path& path) {
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string());
    sink->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    spdlog::default_logger()->sinks().push_back(std::move(sink));
  } catch (const spdlog::spdlog_ex& error) {
    throw Error(ExitCode::kCannotWrite,
                "cannot write the log " + path.string() + ": " + error.what());
  }
}

}  // namespace lorascale
