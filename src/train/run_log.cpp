#include "train/run_log.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "coordinator/record/decision_log.hpp"
#include "io/durable_file.hpp"

namespace lorascale::train {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMaxLogBytes = std::uint64_t{4} << 30;

// Keeps the lines whose `key` is at most `last`; a torn last line goes too.
void truncate_lines(const std::filesystem::path& path, const char* key, std::int64_t last) {
  if (!std::filesystem::exists(path)) {
    return;
  }
  std::istringstream in(io::read_file(path, kMaxLogBytes));
  std::string kept, line;
  while (std::getline(in, line)) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains(key) && json[key].is_number_integer() &&
        json[key].get<std::int64_t>() <= last) {
      kept += line + "\n";
    }
  }
  io::write_file_atomically(path, std::string_view(kept));
}

// The log at `path`, with its lines beyond `last` dropped first.
io::LineLog open_log(const std::filesystem::path& path, const char* key, std::int64_t last,
                     bool expected) {
  if (expected && !std::filesystem::exists(path)) {
    spdlog::warn("{} is not there: what it held of the run before this start is lost",
                 path.string());
  }
  truncate_lines(path, key, last);
  return io::LineLog(path);
}

// The sign of what is no number means nothing.
double printable(double value) {
  return std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value;
}

Json optional_number(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

RunLog::RunLog(const std::filesystem::path& folder, std::int64_t step, std::int64_t decisions,
               const workloads::Words& words)
    : units_(words.unit + "s"),
      units_per_second_(units_ + "_per_s"),
      metrics_(open_log(folder / "metrics.jsonl", "step", step, /*expected=*/step > 0)),
      decisions_(open_log(folder / "decisions.jsonl", "sequence", decisions - 1,
                          /*expected=*/step > 0)),
      tensorboard_(folder / "tensorboard") {}

void RunLog::go_back(std::int64_t step) {
  metrics_lost_before_ += metrics_.lost_lines();
  metrics_ = open_log(metrics_.path(), "step", step, /*expected=*/true);
}

void RunLog::append(io::LineLog& log, const std::string& line) {
  const bool first_loss = log.lost_lines() == 0;
  if (!log.write(line) && first_loss) {
    spdlog::warn("{}: a line could not be written ({}); training goes on", log.path().string(),
                 io::describe_errno(errno));
  }
}

void RunLog::require_complete() const {
  const auto require = [](const io::LineLog& log, std::int64_t lost) {
    if (lost > 0) {
      throw Error(ExitCode::kCannotWrite,
                  fmt::format("{} misses {} line(s) that could not be written; everything else is "
                              "complete. Free space in the run folder",
                              log.path().string(), lost));
    }
  };
  require(metrics_, metrics_lost_before_ + metrics_.lost_lines());
  require(decisions_, decisions_.lost_lines());
}

void RunLog::write(const MetricsLine& line) {
  nlohmann::ordered_json json = {
      {"step", line.step}, {"samples", line.samples}, {"epoch", line.epoch}};
  if (line.loss) {
    const double seconds = line.times.total / 1000.0;
    json["loss"] = optional_number(line.loss);
    json["lr"] = line.plan.lr;
    json["global_batch"] = line.plan.samples;
    json["micro_batch"] = line.plan.leaf_size;
    json["accumulation"] = line.accumulation;
    json["world_size"] = line.world_size;
    json["grad_norm"] = optional_number(line.grad_norm);
    json["applied"] = line.applied;
    json["targets"] = line.targets;
    json[units_] = line.units;
    json[units_per_second_] = seconds > 0 ? static_cast<double>(line.units) / seconds : 0.0;
    json["samples_per_s"] = seconds > 0 ? static_cast<double>(line.plan.samples) / seconds : 0.0;
    json["step_ms"] = line.times.total;
    json["data_wait_ms"] = line.times.data_wait;
    json["compute_ms"] = line.times.compute;
    json["noise_ms"] = line.times.noise;
    json["coordinator_ms"] = line.times.coordinator;
    json["idle_ms"] = line.times.vote;
    json["reduce_ms"] = line.times.reduce;
    json["optimizer_ms"] = line.times.optimizer;
  }
  json["peak_memory_mib"] = line.peak_memory / (1 << 20);
  if (line.noise) {
    json["noise_scale"] = line.noise->b_simple;
    json["noise_scale_relative_sd"] = line.noise->relative_sd;
  }
  if (line.val_loss) {
    json["val_loss"] = *line.val_loss;
  }
  std::vector<std::string> tags = {"loss",         "val_loss",        "lr",      "grad_norm",
                                   "global_batch", units_per_second_, "step_ms", "noise_scale"};
  for (const auto& [prefix, measures] :
       {std::pair("", &line.measures), std::pair("val_", &line.val_measures)}) {
    for (const auto& [name, value] : *measures) {
      tags.push_back(prefix + name);
      json[tags.back()] = value;
    }
  }
  append(metrics_, json.dump());
  for (const auto& tag : tags) {
    if (json.contains(tag) && json[tag].is_number()) {
      tensorboard_.add_scalar(tag, line.step, json[tag].get<double>());
    }
  }
  tensorboard_.flush();
}

void RunLog::write_samples(std::int64_t step, const std::string& markdown) {
  tensorboard_.add_text("samples", step, markdown);
  tensorboard_.flush();
}

void RunLog::write_sample(std::int64_t step, const std::string& name,
                          const workloads::Preview::Picture& picture) {
  tensorboard_.add_image("samples/" + name, step, static_cast<int>(picture.height),
                         static_cast<int>(picture.width), 3, std::as_bytes(std::span(picture.png)));
  tensorboard_.flush();
}

void RunLog::write_norms(std::int64_t step, std::span<const float> norms) {
  tensorboard_.add_histogram("adapter_norms", step, norms);
  tensorboard_.flush();
}

void RunLog::write(const std::vector<coordinator::Decision>& decisions) {
  for (const auto& decision : decisions) {
    append(decisions_, coordinator::to_json_line(decision));
  }
}

void write_status(const std::filesystem::path& folder, const std::string& outcome, ExitCode code,
                  std::int64_t step, std::int64_t generation, const std::string& message) {
  const nlohmann::ordered_json json = {{"outcome", outcome},
                                       {"exit_code", static_cast<int>(code)},
                                       {"step", step},
                                       {"generation", generation},
                                       {"message", message}};
  io::write_file_atomically(folder / "status.json", std::string_view(json.dump(2) + "\n"));
}

Progress::Progress(std::optional<std::int64_t> steps, double minutes, std::string rate)
    : steps_(steps),
      minutes_(minutes),
      rate_(std::move(rate)),
      terminal_(isatty(STDERR_FILENO) == 1) {}

void Progress::update(const MetricsLine& line, std::int64_t steps, double elapsed_minutes) {
  if (steps_) {
    steps_ = steps;
  }
  smoothed_ms_ =
      smoothed_ms_ == 0 ? line.times.total : 0.95 * smoothed_ms_ + 0.05 * line.times.total;
  double left = std::numeric_limits<double>::max();  // seconds
  if (steps_) {
    left =
        smoothed_ms_ / 1000 * static_cast<double>(std::max<std::int64_t>(0, *steps_ - line.step));
  }
  if (minutes_ > 0) {
    left = std::min(left, 60 * std::max(0.0, minutes_ - elapsed_minutes));
  }
  const auto whole = static_cast<std::int64_t>(std::min(left, 1e9));
  const double seconds = line.times.total / 1000.0;
  const auto loss = line.targets == 0
                        ? std::string("none")
                        : fmt::format("{:.4f}", printable(line.loss.value_or(std::nan(""))));
  const auto text =
      fmt::format("step {}{}  epoch {:.2f}  loss {}  lr {:.3g}  {:.0f} {}  eta {:d}:{:02d}:{:02d}",
                  line.step, steps_ ? fmt::format("/{}", *steps_) : "", line.epoch, loss,
                  line.plan.lr, seconds > 0 ? static_cast<double>(line.units) / seconds : 0.0,
                  rate_, whole / 3600, whole / 60 % 60, whole % 60);
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    shown_ = true;
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - last_log_ > std::chrono::seconds(10) || line.step == steps_ || line.step == 1) {
    spdlog::info("{}", text);
    last_log_ = now;
  }
}

void Progress::clear() {
  if (shown_) {
    std::fprintf(stderr, "\r\033[K");
    shown_ = false;
  }
}

}  // namespace lorascale::train
