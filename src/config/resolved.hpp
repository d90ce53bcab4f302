// A complete RunConfig as text and back, and comparisons of two of them; all by the option table.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/run_config.hpp"

namespace lorascale::config {

// YAML with every key; reading it gives an equal RunConfig.
std::string write_resolved(const RunConfig& config);
// Whether a text was written so: anything else is somebody's own.
[[nodiscard]] bool is_resolved(std::string_view text);

// The same for a run's folder, as which it can be given again: without `faults`, which belong to
// one rehearsal.
std::string write_for_run_folder(const RunConfig& config);

// What a run that goes on keeps from its first start, as `saved` has it: the batch where `config`
// gives it per rank, and whether rows are packed where that is for the program to decide. Returns a
// line for each that is now other than `config` would have it. Throws Error(kBadConfig) where the
// batch per rank is another.
std::vector<std::string> keep_first_choices(const RunConfig& saved, RunConfig& config);

// Which options a comparison looks at: all, or those that a resumed run must not change. Free to
// change on resume are paths (what model and training set hold is compared by their fingerprints),
// device, threads, deadlines, cadences, retention, samples, the budget, and what trades memory for
// time without touching results (batch.micro, model.recompute).
enum class Scope { kAll, kFixedOnResume };

struct Difference {
  std::string path;
  std::string first;  // value in the first configuration, as YAML
  std::string second;
};

std::vector<Difference> differences(const RunConfig& first, const RunConfig& second,
                                    Scope scope = Scope::kAll);
// "optimizer.lr: 1.0e-04 was 2.0e-04; data.packing: ..." on one line, for messages; `first` is what
// was.
std::string to_string(const std::vector<Difference>& found);

bool operator==(const RunConfig& first, const RunConfig& second);

}  // namespace lorascale::config
