// The run folder's records: metrics.jsonl (a line per update), decisions.jsonl, TensorBoard events,
// status.json and the progress line on a terminal. Rank 0 only. After a resume, lines beyond the
// checkpoint are dropped first, so that every update has one line.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "coordinator/facts.hpp"
#include "io/line_log.hpp"
#include "io/tensorboard_writer.hpp"
#include "train/update.hpp"
#include "workloads/workload.hpp"

namespace lorascale::train {

struct MetricsLine {
  std::int64_t step = 0;
  std::int64_t samples = 0;  // after the update
  double epoch = 0;          // after the update
  std::optional<double>
      loss;  // of the global batch, before the update; absent on the line of step 0
  std::optional<double> val_loss;
  std::optional<double> grad_norm;
  // Gradient noise scale (samples) with its relative error; absent while it is not known.
  std::optional<coordinator::NoiseReading> noise;
  coordinator::StepPlan plan;
  bool applied = true;
  std::int64_t targets = 0, units = 0;
  std::vector<std::pair<std::string, double>> measures;  // "accuracy", of the batch; perhaps none
  std::vector<std::pair<std::string, double>> val_measures;
  std::int64_t accumulation = 0;  // leaves of the busiest rank
  int world_size = 1;
  double peak_memory = 0;  // bytes of tensors on rank 0, since the line before
  UpdateTimes times;
};

class RunLog {
 public:
  // Opens both files for appending, keeping lines up to `step` and decisions below `decisions`.
  RunLog(const std::filesystem::path& folder, std::int64_t step, std::int64_t decisions,
         const workloads::Words& words);

  // Drops the lines of updates after `step`, which are to be made again. Decisions stay.
  void go_back(std::int64_t step);

  void write(const MetricsLine& line);
  void write(const std::vector<coordinator::Decision>& decisions);
  // Text samples and norms of the adapter's tensors, for TensorBoard.
  void write_samples(std::int64_t step, const std::string& markdown);
  void write_sample(std::int64_t step, const std::string& name,
                    const workloads::Preview::Picture& picture);
  void write_norms(std::int64_t step, std::span<const float> norms);
  // Error(kCannotWrite) where lines were lost on the way.
  void require_complete() const;

 private:
  static void append(io::LineLog& log, const std::string& line);

  std::string units_, units_per_second_;  // keys: "tokens", "tokens_per_s"
  io::LineLog metrics_;
  std::int64_t metrics_lost_before_ = 0;  // until the latest go_back()
  io::LineLog decisions_;
  io::TensorboardWriter tensorboard_;
};

// outcome: "running", "done", "stopped", "failed".
void write_status(const std::filesystem::path& folder, const std::string& outcome, ExitCode code,
                  std::int64_t step, std::int64_t generation, const std::string& message);

// One line that rewrites itself, where stderr is a terminal; otherwise a log line now and then.
class Progress {
 public:
  // Whichever of the two ends the run first; 0 minutes: no limit.
  // `rate`: the name of units per second.
  Progress(std::optional<std::int64_t> steps, double minutes, std::string rate);
  // `steps`: of the whole run, as it looks now.
  void update(const MetricsLine& line, std::int64_t steps, double elapsed_minutes);
  void clear();  // before other output

 private:
  std::optional<std::int64_t> steps_;
  double minutes_;
  std::string rate_;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_log_{};
  double smoothed_ms_ = 0;
};

}  // namespace lorascale::train
