#include "cli/run_records.hpp"

#include <fmt/format.h>

#include <functional>
#include <string_view>

#include "base/error.hpp"
#include "coordinator/record/decision_log.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/file_descriptor.hpp"
#include "io/strict_json.hpp"
#include "train/snapshot.hpp"

namespace lorascale::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 30;
constexpr io::JsonLimits kLineLimits{std::size_t{4} << 20, std::size_t{1} << 20, 200'000, 16};

std::string place(const fs::path& file, std::size_t line) {
  return file.string() + ", line " + std::to_string(line);
}

// Calls `take(line, where)` for each line, after a strict look at it as JSON; adds the place to
// what it throws.
void each_line(const fs::path& file,
               const std::function<void(const std::string&, const std::string&)>& take) {
  const std::string text = io::read_file(file, kMaxFileBytes);
  std::size_t begin = 0;
  for (std::size_t number = 1; begin < text.size(); ++number) {
    const std::string where = place(file, number);
    const auto newline = text.find('\n', begin);
    if (newline == std::string::npos) {
      throw_bad_input(where + " is cut off; everything before it is as it was written");
    }
    const std::string line = text.substr(begin, newline - begin);
    static_cast<void>(io::parse_json(line, where, kLineLimits));
    begin = newline + 1;
    try {
      take(line, where);
    } catch (const Error& error) {
      throw_bad_input(where + ": " + error.what());
    }
  }
}

}  // namespace

std::vector<coordinator::Decision> read_decisions(const fs::path& file) {
  std::vector<coordinator::Decision> decisions;
  each_line(file, [&](const std::string& line, const std::string&) {
    auto decision = coordinator::decision_from_json_line(line);
    const auto due = static_cast<std::int64_t>(decisions.size()) + 1;
    if (decision.sequence != due) {
      throw_bad_input(
          fmt::format("entry {} stands where entry {} was due; lines were removed, "
                      "added or moved",
                      decision.sequence, due));
    }
    const std::uint64_t before = decisions.empty() ? kFnvOffset : decisions.back().chain;
    if (coordinator::to_json_line(decision) != line ||
        coordinator::first_broken_link(std::span(&decision, 1), before)) {
      throw_bad_input("the entry does not have its own digest; it, or one before it, was changed");
    }
    decisions.push_back(std::move(decision));
  });
  if (decisions.empty()) {
    throw_bad_input(file.string() + " holds no decision");
  }
  return decisions;
}

std::vector<coordinator::RecordedEvent> read_events(const fs::path& file) {
  if (!fs::exists(file)) {
    throw_bad_input(file.string() +
                    " is not there: the run was begun by a version that did not record its events, "
                    "or the file was lost; its decisions cannot be taken again");
  }
  std::vector<coordinator::RecordedEvent> events;
  each_line(file, [&](const std::string& line, const std::string&) {
    events.push_back(coordinator::event_from_json_line(line));
  });
  return events;
}

std::optional<SavedCoordinator> newest_saved_coordinator(const fs::path& run_folder) {
  const auto newest = io::find_newest_valid(run_folder / "checkpoints");
  if (!newest.checkpoint) {
    return std::nullopt;
  }
  SavedCoordinator saved;
  saved.checkpoint = newest.checkpoint->folder().filename().string();
  saved.state = train::read_snapshot_fields(*newest.checkpoint).coordinator_state;
  try {
    const auto log = coordinator::Json::parse(saved.state).at("log");
    saved.sequence = log.at("sequence").get<std::int64_t>();
    saved.chain = coordinator::hex64_from(log.at("chain").get<std::string>());
    saved.events = log.value("events", std::int64_t{0});
  } catch (const coordinator::Json::exception& error) {
    throw_bad_input(saved.checkpoint + ": the coordinator's state is damaged: " + error.what());
  }
  return saved;
}

void require_all_decisions(const fs::path& file,
                           const std::vector<coordinator::Decision>& decisions,
                           const SavedCoordinator& saved) {
  const auto count = static_cast<std::int64_t>(decisions.size());
  if (saved.sequence > count) {
    throw_bad_input(
        fmt::format("{} ends after line {}, and {} had {} decisions before it: the end "
                    "was cut off",
                    file.string(), count, saved.checkpoint, saved.sequence));
  }
  if (saved.sequence < 1 ||
      decisions[static_cast<std::size_t>(saved.sequence - 1)].chain != saved.chain) {
    throw_bad_input(fmt::format("{}, up to line {}, is not the record that {} was saved with",
                                file.string(), saved.sequence, saved.checkpoint));
  }
}

std::string printable(const std::string& text) {
  std::string shown;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    if (byte == 0xC2 && next >= 0x80 && next < 0xA0) {  // the controls of ISO 8859-1
      shown += ' ';
      ++i;
    } else {
      shown += byte < 0x20 || byte == 0x7F ? ' ' : text[i];
    }
  }
  return shown;
}

}  // namespace lorascale::cli
