#include "adapters/formats/kohya_tags.hpp"

#include <algorithm>
#include <functional>
#include <map>

#include "base/error.hpp"
#include "io/strict_json.hpp"

namespace lorascale::adapters {
namespace {

constexpr std::uint64_t kMostTimes = std::int64_t{1} << 40;
constexpr io::JsonLimits kTagLimits{.max_bytes = std::size_t{16} << 20,
                                    .max_string_bytes = std::size_t{1} << 16,
                                    .max_values = 1'000'000,
                                    .max_depth = 4};

std::map<std::string, std::int64_t> counted_tags(const nlohmann::json& sets) {
  std::map<std::string, std::int64_t> counts;
  for (const auto& set : sets) {
    if (!set.is_object()) {
      continue;
    }
    for (const auto& [tag, times] : set.items()) {
      if (times.is_number_unsigned() && times.get<std::uint64_t>() <= kMostTimes) {
        auto& sum = counts[tag];
        sum = std::min<std::int64_t>(kMostTimes, sum + times.get<std::int64_t>());
      }
    }
  }
  return counts;
}

}  // namespace

std::vector<std::pair<std::string, std::int64_t>> most_used_tags(std::string_view frequency,
                                                                 std::size_t count) {
  nlohmann::json sets;
  try {
    sets = io::parse_json(frequency, "ss_tag_frequency", kTagLimits);
  } catch (const Error&) {
    return {};  // for people alone: the file is no worse without it
  }
  if (!sets.is_object()) {
    return {};
  }
  const auto counts = counted_tags(sets);
  std::vector<std::pair<std::string, std::int64_t>> tags(counts.begin(), counts.end());
  std::ranges::stable_sort(tags, std::greater(), [](const auto& tag) { return tag.second; });
  tags.resize(std::min(tags.size(), count));
  return tags;
}

}  // namespace lorascale::adapters
