// Everything that a run writes for people and for replay: metrics.jsonl, decisions.jsonl,
// events.jsonl, TensorBoard, status.json, the progress line and the log. Rank 0 writes; on the
// other ranks every function does nothing.
#pragma once

#include <spdlog/common.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/coordinator.hpp"
#include "train/event_record.hpp"
#include "train/run_log.hpp"

namespace lorascale::train {

class RunRecord {
 public:
  RunRecord(std::filesystem::path folder, bool writes)
      : folder_(std::move(folder)), writes_(writes) {}

  // Opens the files of a run that begins or, `resumed`, goes on: what lies beyond the coordinator's
  // place in them is dropped. Writes its first decisions.
  void open(coordinator::Coordinator& coordinator, const workloads::Words& words, bool resumed);

  void write(const coordinator::Event& event);
  void write(const std::vector<coordinator::Decision>& decisions);
  void write(const MetricsLine& line);
  // Shows an update on the progress line.
  void show(const MetricsLine& line, const coordinator::Coordinator& coordinator);
  void write_samples(std::int64_t step, const std::string& markdown);
  void write_sample(std::int64_t step, const std::string& name,
                    const workloads::Preview::Picture& picture);
  void write_norms(std::int64_t step, const std::vector<float>& norms);
  // A line of the log, not across the progress line.
  void say(spdlog::level::level_enum level, const std::string& text);
  // status.json; `generation` is that of the run's lock.
  void write_status(const std::string& outcome, ExitCode code, std::int64_t step,
                    std::int64_t generation, const std::string& message);

  // Updates after `step` are to be made again: drops their lines. Decisions stay.
  void go_back(std::int64_t step);
  // Error(kCannotWrite) where lines were lost on the way.
  void require_complete() const;

 private:
  std::filesystem::path folder_;
  bool writes_;
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<EventRecord> events_;  // null where the run cannot be replayed
  std::unique_ptr<Progress> progress_;
};

}  // namespace lorascale::train
