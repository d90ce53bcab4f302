#include "base/units.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/error.hpp"

namespace lorascale {
namespace {

struct UnitName {
  std::string_view name;
  Unit unit;
  double factor;
};

constexpr std::array kUnitNames = {
    UnitName{"samples", Unit::kSamples, 1},
    UnitName{"sample", Unit::kSamples, 1},
    UnitName{"tokens", Unit::kTokens, 1},
    UnitName{"token", Unit::kTokens, 1},
    UnitName{"tok", Unit::kTokens, 1},
    UnitName{"steps", Unit::kSteps, 1},
    UnitName{"step", Unit::kSteps, 1},
    UnitName{"epochs", Unit::kEpochs, 1},
    UnitName{"epoch", Unit::kEpochs, 1},
    UnitName{"minutes", Unit::kMinutes, 1},
    UnitName{"minute", Unit::kMinutes, 1},
    UnitName{"min", Unit::kMinutes, 1},
    UnitName{"m", Unit::kMinutes, 1},
    UnitName{"hours", Unit::kMinutes, 60},
    UnitName{"hour", Unit::kMinutes, 60},
    UnitName{"h", Unit::kMinutes, 60},
    UnitName{"seconds", Unit::kMinutes, 1.0 / 60},
    UnitName{"second", Unit::kMinutes, 1.0 / 60},
    UnitName{"sec", Unit::kMinutes, 1.0 / 60},
    UnitName{"s", Unit::kMinutes, 1.0 / 60},
};

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::optional<double> magnitude(char letter) {
  switch (letter) {
    case 'k':
    case 'K':
      return 1e3;
    case 'M':
      return 1e6;
    case 'G':
    case 'B':
      return 1e9;
    default:
      return std::nullopt;
  }
}

}  // namespace

std::string_view unit_name(Unit unit) {
  switch (unit) {
    case Unit::kSamples:
      return "samples";
    case Unit::kTokens:
      return "tokens";
    case Unit::kSteps:
      return "steps";
    case Unit::kEpochs:
      return "epochs";
    case Unit::kMinutes:
      return "minutes";
    case Unit::kFraction:
      return "%";
  }
  return "";
}

namespace {

std::string shortest(double value) {
  std::array<char, 32> buffer{};
  const auto [end, status] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  LS_ASSERT(status == std::errc());
  return {buffer.data(), end};
}

// The last update of an epoch takes what is left of it, so a step is not always a whole batch.
double samples_of_steps(double steps, const UnitContext& context) {
  const auto batch = static_cast<double>(context.global_batch);
  const auto epoch = static_cast<double>(context.samples_per_epoch);
  if (batch <= 0 || epoch <= 0) {
    return steps * batch;
  }
  const double steps_per_epoch = std::ceil(epoch / batch);
  const double whole_epochs = std::floor(steps / steps_per_epoch);
  return whole_epochs * epoch + std::min((steps - whole_epochs * steps_per_epoch) * batch, epoch);
}

}  // namespace

Amount parse_amount(std::string_view text, Unit bare_unit) {
  const auto refuse = [&]() -> Amount {
    throw_bad_config(
        "'" + std::string(text) +
        "' is not an amount; write a number and a unit, as in '500 steps', '2M samples', "
        "'3 epochs', '10 min' or '3%'");
  };
  std::string_view rest = trimmed(text);
  double value = 0;
  const auto [end, status] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (status != std::errc() || !std::isfinite(value) || value < 0) {
    return refuse();
  }
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  if (rest == "%") {
    return {value / 100, Unit::kFraction};
  }
  // "2M samples" but "10 m": a magnitude letter is followed by a space or stands alone.
  if (!rest.empty() && (rest.size() == 1 || rest[1] == ' ')) {
    if (const auto factor = magnitude(rest.front())) {
      value *= *factor;
      rest.remove_prefix(1);
    }
  }
  rest = trimmed(rest);
  if (rest.empty()) {
    return {value, bare_unit};
  }
  for (const auto& candidate : kUnitNames) {
    if (candidate.name == rest) {
      return {value * candidate.factor, candidate.unit};
    }
  }
  return refuse();
}

std::string to_string(const Amount& amount) {
  if (amount.unit == Unit::kFraction) {
    return shortest(amount.value * 100) + "%";
  }
  if (amount.unit == Unit::kMinutes) {
    return shortest(amount.value) + " min";
  }
  std::string_view unit = unit_name(amount.unit);
  if (amount.value == 1 && unit.ends_with('s')) {
    unit.remove_suffix(1);
  }
  return shortest(amount.value) + " " + std::string(unit);
}

std::string counted(std::int64_t number, std::string_view noun, std::string_view plural) {
  const std::string several = plural.empty() ? std::string(noun) + "s" : std::string(plural);
  return std::to_string(number) + " " + (number == 1 ? std::string(noun) : several);
}

std::int64_t to_samples(const Amount& amount, const UnitContext& context) {
  double samples = 0;
  switch (amount.unit) {
    case Unit::kSamples:
      samples = amount.value;
      break;
    case Unit::kTokens:
      if (context.tokens_per_sample <= 0 && amount.value > 0) {
        throw_bad_config("'" + to_string(amount) +
                         "' means nothing where samples are not made of tokens; use samples, steps "
                         "or epochs");
      }
      samples = amount.value > 0 ? amount.value / context.tokens_per_sample : 0;
      break;
    case Unit::kSteps:
      samples = samples_of_steps(amount.value, context);
      break;
    case Unit::kEpochs:
      samples = amount.value * static_cast<double>(context.samples_per_epoch);
      break;
    case Unit::kFraction:
      samples = amount.value * static_cast<double>(context.budget_samples);
      break;
    case Unit::kMinutes:
      throw_bad_config("'" + to_string(amount) +
                       "' cannot be expressed in samples; use samples, epochs or %");
  }
  constexpr double kLargest = 9.0e18;  // below 2^63
  if (samples > kLargest) {
    throw_bad_config("'" + to_string(amount) + "' is more samples than 64 bits can count");
  }
  return std::llround(samples);
}

}  // namespace lorascale
