// `inspect decisions.jsonl`: the story of a run, a line per decision, repeats taken together.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <string_view>
#include <utility>

#include "cli/run_records.hpp"

namespace lorascale::cli {
namespace {

namespace fs = std::filesystem;
using coordinator::Decision;

// The kinds of decisions.jsonl in words. A kind that is not here is shown by its own name.
constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kWords = {{
    {"plan", "plan"},
    {"lr", "rate"},
    {"batch", "batch"},
    {"gain", "gain"},
    {"noise", "noise"},
    {"memory", "memory"},
    {"skip", "skipped"},
    {"best", "best so far"},
    {"advice", "ADVICE"},
    {"resume", "resumed"},
    {"early_stop", "stopped"},
    {"diverged", "DIVERGED"},
    {"budget", "done"},
    {"time", "done"},
}};

// Those after which no update follows.
constexpr std::array<std::string_view, 4> kEnds = {"early_stop", "diverged", "budget", "time"};

// Of which each says something of its own.
constexpr std::array<std::string_view, 4> kNeverTogether = {"plan", "advice", "resume", "batch"};

constexpr std::size_t kMostShown = 2;  // of a row of equal kinds; more are taken together

template <typename Names>
bool is_one_of(const std::string& kind, const Names& names) {
  return std::find(names.begin(), names.end(), kind) != names.end();
}

// A run that has ended may be started again and find nothing to do; only more of a budget, or going
// back, gives it more.
bool is_over(const std::vector<Decision>& decisions) {
  bool over = false;
  for (const Decision& decision : decisions) {
    if (is_one_of(decision.kind, kEnds)) {
      over = true;
    } else if (decision.kind == "recover") {
      over = false;
    } else if (decision.kind == "resume" && over) {
      const auto inputs =
          coordinator::Json::parse(decision.inputs, nullptr, /*allow_exceptions=*/false);
      for (const std::string budget : {"/budget_samples", "/budget_minutes"}) {
        using Pointer = coordinator::Json::json_pointer;
        over = over && inputs.is_object() &&
               inputs.value(Pointer(budget + "/0"), -1.0) ==
                   inputs.value(Pointer(budget + "/1"), -2.0);
      }
    }
  }
  return over;
}

std::string in_words(const std::string& kind) {
  for (const auto& [name, word] : kWords) {
    if (name == kind) {
      return std::string(word);
    }
  }
  return printable(kind.substr(0, 16));
}

// Samples of an epoch as the plan has them; 0 where it does not say.
double samples_per_epoch(const Decision& plan) {
  const auto inputs = coordinator::Json::parse(plan.inputs, nullptr, /*allow_exceptions=*/false);
  const auto pointer = coordinator::Json::json_pointer("/recipe/data.samples_per_epoch");
  if (!inputs.is_object() || !inputs.contains(pointer) || !inputs.at(pointer).is_number()) {
    return 0;
  }
  return inputs.at(pointer).get<double>();
}

class Storyteller {
 public:
  explicit Storyteller(double epoch) : epoch_(epoch) {
    std::cout << fmt::format("{:>8} {:>12} {:>8}  {:<12} {}\n", "step", "samples", "epoch", "what",
                             "why");
  }

  void tell(const Decision& decision) const { line(decision, printable(decision.reason)); }

  void tell_together(const Decision& first, const Decision& last, std::size_t count) const {
    line(last, fmt::format("{} times from step {} on, at last: {}", count, first.step,
                           printable(last.reason)));
  }

 private:
  void line(const Decision& decision, const std::string& text) const {
    const std::string epoch =
        epoch_ > 0 ? fmt::format("{:.2f}", static_cast<double>(decision.samples) / epoch_) : "-";
    std::cout << fmt::format("{:>8} {:>12} {:>8}  {:<12} {}\n", decision.step, decision.samples,
                             epoch, in_words(decision.kind), text);
  }

  double epoch_;
};

void tell_all(const std::vector<Decision>& decisions) {
  const Storyteller storyteller(samples_per_epoch(decisions.front()));
  for (std::size_t i = 0; i < decisions.size();) {
    std::size_t end = i + 1;
    while (end < decisions.size() && decisions[end].kind == decisions[i].kind &&
           !is_one_of(decisions[i].kind, kNeverTogether)) {
      ++end;
    }
    if (end - i > kMostShown) {
      storyteller.tell_together(decisions[i], decisions[end - 1], end - i);
    } else {
      std::for_each(decisions.begin() + static_cast<std::ptrdiff_t>(i),
                    decisions.begin() + static_cast<std::ptrdiff_t>(end),
                    [&](const Decision& decision) { storyteller.tell(decision); });
    }
    i = end;
  }
}

}  // namespace

void inspect_decisions(const fs::path& file) {
  const auto decisions = read_decisions(file);
  const auto folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  const auto saved = newest_saved_coordinator(folder);
  if (saved) {
    require_all_decisions(file, decisions, *saved);
  }
  tell_all(decisions);
  // A run that goes on after its end does so with a resume.
  std::cout << (is_over(decisions)
                    ? ""
                    : "no end is recorded: the run goes on, or was stopped and can go on\n")
            << fmt::format(
                   "{} decisions, each as it was written{}; digest of the last {}\n",
                   decisions.size(),
                   saved ? ", all that " + saved->checkpoint + " was saved with among them" : "",
                   coordinator::hex64(decisions.back().chain));
}

}  // namespace lorascale::cli
