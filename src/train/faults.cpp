#include "train/faults.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <iterator>
#include <new>
#include <span>
#include <sstream>
#include <thread>
#include <utility>

#include "base/error.hpp"

namespace lorascale::train {
namespace {

constexpr std::array kKinds = {
    std::pair{"oom", Fault::Kind::kOom}, std::pair{"nan", Fault::Kind::kNan},
    std::pair{"mask", Fault::Kind::kMask}, std::pair{"slow", Fault::Kind::kSlow},
    std::pair{"kill", Fault::Kind::kKill}};
constexpr std::array kPhases = {
    std::pair{"forward", Phase::kForward},     std::pair{"backward", Phase::kBackward},
    std::pair{"optimizer", Phase::kOptimizer}, std::pair{"evaluation", Phase::kEvaluation},
    std::pair{"sample", Phase::kSample},       std::pair{"recovery", Phase::kRecovery}};

[[noreturn]] void refuse(const std::string& text, const std::string& what) {
  throw_bad_config(fmt::format(
      "faults: '{}': {}; write for example 'oom step=3 phase=forward rank=1'", text, what));
}

template <typename Names>
auto named(const Names& names, const std::string& name, const std::string& text) {
  for (const auto& [known, value] : names) {
    if (name == known) {
      return value;
    }
  }
  refuse(text, "'" + name + "' is not known");
}

template <typename Number>
Number number(const std::string& digits, Number least, const std::string& text) {
  Number value{};
  const auto* end = digits.data() + digits.size();
  const auto result = std::from_chars(digits.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end || !(value >= least)) {
    refuse(text, "'" + digits + "' is no number here");
  }
  return value;
}

}  // namespace

Fault parse_fault(const std::string& text) {
  std::istringstream words(text);
  std::string word;
  words >> word;
  Fault fault;
  fault.text = text;
  fault.kind = named(kKinds, word, text);
  // Two kinds have one phase each.
  const bool mask = fault.kind == Fault::Kind::kMask;
  bool phase = mask || fault.kind == Fault::Kind::kNan;
  fault.phase = mask ? Phase::kForward : Phase::kBackward;
  while (words >> word) {
    const auto equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (key == "step") {
      fault.step = number<std::int64_t>(value, 0, text);
    } else if (key == "rank") {
      fault.rank = number<std::int64_t>(value, 0, text);
    } else if (key == "times") {
      fault.times = number<std::int64_t>(value, 1, text);
    } else if (key == "seconds") {
      fault.seconds = number<double>(value, 0.0, text);
    } else if (key == "phase") {
      fault.phase = named(kPhases, value, text);
      phase = true;
    } else {
      refuse(text, "'" + word + "' is not known");
    }
  }
  if (!phase) {
    refuse(text, "phase= is missing");
  }
  if (fault.kind == Fault::Kind::kNan && fault.phase != Phase::kBackward) {
    refuse(text, "nan spoils a gradient, which phase=backward alone makes");
  }
  if (mask && fault.phase != Phase::kForward) {
    refuse(text, "mask spoils a leaf, which phase=forward alone takes");
  }
  return fault;
}

FaultInjector::FaultInjector(const std::vector<std::string>& faults, int rank)
    : reached_(faults.size()), rank_(rank) {
  std::ranges::transform(faults, std::back_inserter(faults_), parse_fault);
}

std::vector<std::string> FaultInjector::missed(comm::Communicator& host) const {
  auto reached = reached_;
  host.all_reduce(std::span(reached));
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    if (reached[i] == 0 && faults_[i].step >= first_step_) {
      texts.push_back(faults_[i].text);
    }
  }
  return texts;
}

bool FaultInjector::reach(Phase phase) {
  bool spoil = false;
  for (std::size_t i = 0; i < faults_.size(); ++i) {
    const Fault& fault = faults_[i];
    const bool here = fault.rank < 0 || fault.rank == rank_;
    if (!here || fault.step != step_ || fault.phase != phase || reached_[i] == fault.times) {
      continue;
    }
    ++reached_[i];
    spdlog::warn("a fault of the configuration is due at step {}", step_);
    switch (fault.kind) {
      case Fault::Kind::kOom:
        throw std::bad_alloc();
      case Fault::Kind::kNan:
      case Fault::Kind::kMask:
        spoil = true;
        break;
      case Fault::Kind::kSlow:
        std::this_thread::sleep_for(std::chrono::duration<double>(fault.seconds));
        break;
      case Fault::Kind::kKill:
        std::raise(SIGKILL);
    }
  }
  return spoil;
}

}  // namespace lorascale::train
