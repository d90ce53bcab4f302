// The records of a run as `inspect` reads them: files of unknown origin, believed only as far as
// their digests and the newest checkpoint bear them out. Everything that is wrong is
// Error(kBadInput) that names the file and the line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/coordinator.hpp"
#include "coordinator/record/json_number.hpp"
#include "coordinator/record/replay.hpp"

namespace lorascale::cli {

// Every entry of a decisions.jsonl, of which none was changed, left out or moved. Entries cut off
// at the end do not show here; see require_all_decisions.
std::vector<coordinator::Decision> read_decisions(const std::filesystem::path& file);

std::vector<coordinator::RecordedEvent> read_events(const std::filesystem::path& file);

// What the newest intact checkpoint of a run folder knows of the records up to it.
struct SavedCoordinator {
  std::string checkpoint;     // name of its folder
  std::string state;          // the coordinator's, as saved
  std::int64_t sequence = 0;  // decisions
  std::uint64_t chain = 0;    // digest of the last of them
  std::int64_t events = 0;    // 0: saved by a version that did not count them
};
// Nothing where there is no checkpoint.
std::optional<SavedCoordinator> newest_saved_coordinator(const std::filesystem::path& run_folder);

// That no entry before the checkpoint was cut off or replaced.
void require_all_decisions(const std::filesystem::path& file,
                           const std::vector<coordinator::Decision>& decisions,
                           const SavedCoordinator& saved);

// Text of a file for a terminal: control characters become spaces.
std::string printable(const std::string& text);

// The verbs' parts.
void inspect_decisions(const std::filesystem::path& file);
void replay_run(const std::filesystem::path& run_folder);

}  // namespace lorascale::cli
