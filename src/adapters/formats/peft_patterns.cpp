#include "adapters/formats/peft_patterns.hpp"

#include <nlohmann/json.hpp>

#include "adapters/targets.hpp"
#include "base/error.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::adapters {
namespace {

constexpr std::size_t kMostBytes = 64 << 20;  // compiled; a few letters may take 64 KiB

}  // namespace

PeftPatterns::PeftPatterns(const nlohmann::ordered_json& config, const char* key,
                           const std::string& where)
    : where_(where + ": " + key + ": ") {
  const auto patterns = config.find(key);
  if (patterns == config.end() || patterns->is_null()) {
    return;
  }
  if (!patterns->is_object()) {
    throw_bad_input(where_ + "must be a mapping of module names to numbers");
  }
  std::size_t bytes = 0;
  for (const auto& [text, value] : patterns->items()) {
    if (!value.is_number() || !(value.get<double>() > 0)) {
      throw_bad_input(where_ + "the value of " + io::in_quotes(text) + " is no number above 0");
    }
    try {
      found_.push_back({text, layer_pattern(text), value.get<double>()});
    } catch (const PatternError& error) {
      throw_bad_input(where_ + io::in_quotes(text) + " " + error.what());
    }
    bytes += found_.back().pattern.size();
    if (bytes > kMostBytes) {
      throw_bad_input(where_ + "the patterns take too much memory; get a fresh copy");
    }
  }
}

double PeftPatterns::of(const std::string& module, double usual) const {
  for (const auto& [text, pattern, value] : found_) {
    try {
      if (pattern.matches_whole(module)) {
        return value;
      }
    } catch (const PatternError& error) {
      throw_bad_input(where_ + io::in_quotes(text) + " " + error.what());
    }
  }
  return usual;
}

}  // namespace lorascale::adapters
