#include "config/resolved.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.hpp"
#include "config/options.hpp"

namespace lorascale::config {
namespace {

std::vector<std::string> components(const std::string& path) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (std::size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', begin)) {
    parts.push_back(path.substr(begin, dot - begin));
    begin = dot + 1;
  }
  parts.push_back(path.substr(begin));
  return parts;
}

bool looked_at(const Option& option, Scope scope) {
  return scope == Scope::kAll || option.on_resume == OnResume::kMustMatch;
}

constexpr std::string_view kFirstLine =
    "# Resolved configuration of a lorascale run: every key, defaults and --set included.\n";

}  // namespace

bool is_resolved(std::string_view text) {
  return text.starts_with(kFirstLine);
}

std::string write_resolved(const RunConfig& config) {
  std::string out =
      std::string(kFirstLine) +
      "# It can be given to lorascale again; relative paths are relative to the working "
      "directory.\n";
  std::vector<std::string> open;  // sections the last line is in
  for (const auto& option : options()) {
    const std::vector<std::string> path = components(option.path);
    const std::vector<std::string> sections(path.begin(), path.end() - 1);
    const auto common = std::mismatch(sections.begin(), sections.end(), open.begin(), open.end());
    for (auto section = common.first; section != sections.end(); ++section) {
      const auto depth = static_cast<std::size_t>(section - sections.begin());
      out += (depth == 0 ? "\n" : std::string(2 * depth, ' ')) + *section + ":\n";
    }
    open = sections;
    out += (sections.empty() ? "\n" : std::string(2 * sections.size(), ' ')) + path.back() + ": " +
           option.write(config) + "\n";
  }
  return out;
}

std::string write_for_run_folder(const RunConfig& config) {
  RunConfig kept = config;
  kept.faults.clear();
  return write_resolved(kept);
}

std::vector<std::string> keep_first_choices(const RunConfig& saved, RunConfig& config) {
  std::vector<std::string> lines;
  if (!config.data.packing) {
    config.data.packing = saved.data.packing;
  }
  BatchSection& batch = config.batch;
  if (!batch.per_rank || batch.global == saved.batch.global) {
    return lines;
  }
  const bool same = saved.batch.per_rank ? *saved.batch.per_rank == *batch.per_rank
                                         : saved.batch.global % *batch.per_rank == 0;
  if (!same) {
    const std::string before =
        saved.batch.per_rank ? std::to_string(*saved.batch.per_rank) : "no part of its batch";
    throw_bad_config(
        fmt::format("the batch of each rank is {} and was {} when the run began, with batch.global "
                    "{}; set it back, or choose another run.output_dir",
                    *batch.per_rank, before, saved.batch.global));
  }
  lines.push_back(
      fmt::format("a batch of {} on each rank would be batch.global {} on the ranks of now; the "
                  "run began with {} and goes on with that",
                  *batch.per_rank, batch.global, saved.batch.global));
  if (batch.reference == batch.global) {  // unless it was set to something else
    batch.reference = saved.batch.reference;
  }
  batch.global = saved.batch.global;
  return lines;
}

std::vector<Difference> differences(const RunConfig& first, const RunConfig& second, Scope scope) {
  std::vector<Difference> found;
  for (const auto& option : options()) {
    if (!looked_at(option, scope)) {
      continue;
    }
    std::string a = option.write(first);
    std::string b = option.write(second);
    if (a != b) {
      found.push_back({option.path, std::move(a), std::move(b)});
    }
  }
  return found;
}

std::string to_string(const std::vector<Difference>& found) {
  std::string out;
  for (const auto& difference : found) {
    out += fmt::format("{}{}: {} was {}", out.empty() ? "" : "; ", difference.path,
                       difference.second, difference.first);
  }
  return out;
}

bool operator==(const RunConfig& first, const RunConfig& second) {
  return differences(first, second).empty();
}

}  // namespace lorascale::config
