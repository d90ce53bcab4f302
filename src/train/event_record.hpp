// events.jsonl: every fact that the coordinator was told, a line each, chained (replay.hpp). With
// the first line of decisions.jsonl it is all that the decisions of a run follow from. Rank 0 only.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "coordinator/record/replay.hpp"
#include "io/line_log.hpp"

namespace lorascale::train {

class EventRecord {
 public:
  // Appends to `path`, after a line with digest `recorder.chain()`.
  EventRecord(const std::filesystem::path& path, coordinator::Recorder recorder)
      : log_(path), recorder_(recorder) {}

  void write(const coordinator::Event& event);
  // Error(kCannotWrite) where lines were lost on the way.
  void require_complete() const;

 private:
  io::LineLog log_;
  coordinator::Recorder recorder_;
};

// Of a run that begins: an empty file. Of one that goes on: what happened after its checkpoint is
// dropped, and the resume is recorded. Null where the earlier part is not all there, as of a run
// begun by a version without this record: what is left of it is set aside, for it could not be
// replayed.
std::unique_ptr<EventRecord> open_event_record(const std::filesystem::path& path,
                                               const coordinator::Coordinator& coordinator,
                                               bool resumed);

}  // namespace lorascale::train
