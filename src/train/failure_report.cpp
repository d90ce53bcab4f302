#include "train/failure_report.hpp"

#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "base/heartbeat.hpp"
#include "io/durable_file.hpp"

namespace lorascale::train {

void write_failure_report(const std::filesystem::path& run_folder, const Place& place,
                          ExitCode code, const std::string& message) noexcept {
  try {
    const auto last = last_heartbeat();
    const nlohmann::ordered_json json = {
        {"rank", place.rank}, {"host", place.host},  {"exit_code", static_cast<int>(code)},
        {"step", last.step},  {"phase", last.phase}, {"message", message}};
    io::write_file_atomically(
        run_folder / ("error-" + std::to_string(place.rank) + ".json"),
        std::string_view(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
                         "\n"));
  } catch (const std::exception& error) {
    spdlog::warn("the report of the failure was not written: {}", error.what());
  }
}

void remove_failure_reports(const std::filesystem::path& run_folder) {
  for (const auto& entry : std::filesystem::directory_iterator(run_folder)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with("error-") && name.ends_with(".json")) {
      std::error_code ignored;  // an old report that stays is no reason not to train
      std::filesystem::remove(entry.path(), ignored);
    }
  }
}

}  // namespace lorascale::train
