#include "train/run_record.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace lorascale::train {
namespace {

spdlog::level::level_enum level_of(const coordinator::Decision& decision) {
  constexpr std::array<std::string_view, 4> kTrouble = {"advice", "skip", "diverged", "recover"};
  const bool trouble = std::ranges::find(kTrouble, decision.kind) != kTrouble.end();
  return trouble ? spdlog::level::warn : spdlog::level::info;
}

}  // namespace

void RunRecord::open(coordinator::Coordinator& coordinator, const workloads::Words& words,
                     bool resumed) {
  if (!writes_) {
    return;
  }
  const auto decisions = coordinator.take_decisions();
  const auto first = decisions.empty() ? 0 : decisions.front().sequence;
  // A start from nothing keeps nothing: not even the line of step 0 of a run that died early.
  log_ = std::make_unique<RunLog>(folder_, resumed ? coordinator.steps_done() : -1, first, words);
  events_ = open_event_record(folder_ / "events.jsonl", coordinator, resumed);
  const auto& recipe = coordinator.recipe();
  progress_ = std::make_unique<Progress>(recipe.budget_samples == coordinator::kNoSampleLimit
                                             ? std::nullopt
                                             : std::optional(coordinator.steps_expected()),
                                         recipe.budget_minutes, words.rate);
  write(decisions);
}

void RunRecord::write(const coordinator::Event& event) {
  if (events_) {
    events_->write(event);
  }
}

void RunRecord::write(const std::vector<coordinator::Decision>& decisions) {
  if (!log_) {
    return;
  }
  log_->write(decisions);
  for (const auto& decision : decisions) {
    say(level_of(decision), decision.kind + ": " + decision.reason);
  }
}

void RunRecord::write(const MetricsLine& line) {
  if (log_) {
    log_->write(line);
  }
}

void RunRecord::show(const MetricsLine& line, const coordinator::Coordinator& coordinator) {
  if (progress_) {
    progress_->update(line, coordinator.steps_expected(), coordinator.elapsed_minutes());
  }
}

void RunRecord::write_samples(std::int64_t step, const std::string& markdown) {
  if (log_) {
    log_->write_samples(step, markdown);
  }
}

void RunRecord::write_sample(std::int64_t step, const std::string& name,
                             const workloads::Preview::Picture& picture) {
  if (log_) {
    log_->write_sample(step, name, picture);
  }
}

void RunRecord::write_norms(std::int64_t step, const std::vector<float>& norms) {
  if (log_) {
    log_->write_norms(step, norms);
  }
}

void RunRecord::say(spdlog::level::level_enum level, const std::string& text) {
  if (!writes_) {
    return;
  }
  if (progress_) {
    progress_->clear();
  }
  spdlog::log(level, "{}", text);
}

void RunRecord::write_status(const std::string& outcome, ExitCode code, std::int64_t step,
                             std::int64_t generation, const std::string& message) {
  if (writes_) {
    train::write_status(folder_, outcome, code, step, generation, message);
  }
}

void RunRecord::go_back(std::int64_t step) {
  if (log_) {
    log_->go_back(step);
  }
}

void RunRecord::require_complete() const {
  if (log_) {
    log_->require_complete();
  }
  if (events_) {
    events_->require_complete();
  }
}

}  // namespace lorascale::train
