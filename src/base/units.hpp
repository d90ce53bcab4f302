// Amounts with a unit, as written in a config: "500 steps", "2M samples", "3 epochs", "10 min",
// "3%". The recipe counts in samples; units are resolved once, where the data set and the batch are
// known.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lorascale {

enum class Unit { kSamples, kTokens, kSteps, kEpochs, kMinutes, kFraction };

struct Amount {
  double value = 0.0;  // of `unit`; kFraction: 0.03 for "3%"
  Unit unit = Unit::kSamples;
  friend bool operator==(const Amount&, const Amount&) = default;
};

// Reads "<number>[k|K|M|G|B] <unit>", "<number>%" or "0". Singular, plural and short unit names are
// taken (sample(s), token(s)/tok, step(s), epoch(s), minute(s)/min/m, hour(s)/h, second(s)/s; the
// last two become minutes). A bare number takes `bare_unit`. Throws Error(kBadConfig) with the text
// and the accepted forms.
Amount parse_amount(std::string_view text, Unit bare_unit);

// "samples"; of a fraction "%".
std::string_view unit_name(Unit unit);

// The inverse, in its shortest exact form: "500 steps", "3%".
std::string to_string(const Amount& amount);

// "1 row", "2 rows"; `plural` where it is not the noun and an s.
std::string counted(std::int64_t number, std::string_view noun, std::string_view plural = {});

// What an amount means in samples. Throws Error(kBadConfig) for minutes, which no sample count can
// express.
struct UnitContext {
  std::int64_t samples_per_epoch = 0;
  std::int64_t global_batch = 0;
  double tokens_per_sample = 0.0;   // average
  std::int64_t budget_samples = 0;  // what kFraction is a fraction of
};
std::int64_t to_samples(const Amount& amount, const UnitContext& context);

}  // namespace lorascale
