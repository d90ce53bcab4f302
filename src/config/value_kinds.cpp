#include "config/value_kinds.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/error.hpp"

namespace lorascale::config {
namespace {

std::string kind_name(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "no value";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map (text with ': ' inside needs quotes)";
    case YamlNode::Kind::kScalar:
      break;
  }
  return "text";
}

// Parses with a message of ours where the text is not fit to be shown as it is.
Amount read_amount(const std::string& text, Unit bare) {
  constexpr std::size_t kLongestAmount = 64;
  const bool printable = std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7F;
  });
  if (!printable || text.size() > kLongestAmount) {
    throw ValueError(in_quotes(text) + " is not an amount; write a number and a unit");
  }
  try {
    return parse_amount(text, bare);
  } catch (const Error& error) {
    throw ValueError(error.what());
  }
}

// The part of an amount that is its number: "2.5" of "2.5k samples".
std::string_view number_part(std::string_view text) {
  const std::size_t end = text.find_first_not_of("+-.0123456789_,");
  return text.substr(0, end);
}

// Multiplying by 100 and dividing again is not exact in binary, so look for the percentage that
// reads back as `fraction`; every fraction that came from a percentage has one within a few units
// in the last place.
std::string percent_text(double fraction) {
  constexpr int kNeighbours = 4;
  const double start = fraction * 100;
  for (int precision = 1; precision <= 17; ++precision) {
    std::array<char, 40> buffer{};
    const auto [end, status] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), start,
                                             std::chars_format::general, precision);
    double percent = 0;
    std::from_chars(buffer.data(), end, percent);
    if (status == std::errc() && percent / 100 == fraction) {
      return real_text(percent) + "%";
    }
  }
  double below = start;
  double above = start;
  for (int i = 0; i < kNeighbours; ++i) {
    below = std::nextafter(below, 0.0);
    above = std::nextafter(above, std::numeric_limits<double>::infinity());
    for (const double percent : {below, above}) {
      if (percent / 100 == fraction) {
        return real_text(percent) + "%";
      }
    }
  }
  return real_text(start) + "%";
}

// Takes the quotes off every scalar; whether there were any.
bool take_off_quotes(YamlNode& node) {
  bool found = node.quoted;
  node.quoted = false;
  for (auto& item : node.items) {
    found = take_off_quotes(item) || found;
  }
  for (auto& entry : node.entries) {
    found = take_off_quotes(entry.value) || found;
  }
  return found;
}

}  // namespace

bool read_leniently(const YamlNode& node, const std::function<void(const YamlNode&)>& read) {
  try {
    read(node);
    return false;
  } catch (const ValueError&) {
    YamlNode plain = node;
    if (!take_off_quotes(plain)) {
      throw;
    }
    read(plain);
    return true;
  }
}

const std::string& scalar_text(const YamlNode& node, std::string_view what) {
  if (node.kind == YamlNode::Kind::kNull) {
    throw ValueError("has no value; write " + std::string(what) + " or delete the line");
  }
  if (node.kind != YamlNode::Kind::kScalar) {
    throw ValueError(fmt::format("expects {}, not {}", what, kind_name(node)));
  }
  return node.text;
}

const std::string& unquoted_text(const YamlNode& node, std::string_view what) {
  const std::string& text = scalar_text(node, what);
  if (node.quoted) {
    throw ValueError(fmt::format("{} is in quotes, which makes it text; write {} without quotes",
                                 in_quotes(text), what));
  }
  return text;
}

void IntegerKind::read(const YamlNode& node, std::int64_t& value) const {
  const std::string& text = unquoted_text(node, "a whole number");
  const std::int64_t number = parse_integer(text);
  if (number < low || number > high) {
    throw ValueError(fmt::format("{} is out of range; write a whole number from {} to {}",
                                 in_quotes(text), low, high));
  }
  value = number;
}

void SeedKind::read(const YamlNode& node, std::uint64_t& value) {
  value = parse_unsigned(unquoted_text(node, "a whole number"));
}

void RealKind::read(const YamlNode& node, double& value) const {
  const std::string& text = unquoted_text(node, "a number");
  const double number = parse_real(text);
  const bool above = low_open ? number > low : number >= low;
  const bool below = high_open ? number < high : number <= high;
  if (!above || !below) {
    throw ValueError(fmt::format("{} is out of range; write a {}", in_quotes(text), form()));
  }
  value = number;
}

std::string RealKind::form() const {
  if (std::isinf(high)) {
    return fmt::format("number {} {}", low_open ? ">" : ">=", real_text(low));
  }
  return fmt::format("number in {}{}, {}{}", low_open ? "(" : "[", real_text(low), real_text(high),
                     high_open ? ")" : "]");
}

void BooleanKind::read(const YamlNode& node, bool& value) {
  value = parse_boolean(unquoted_text(node, "true or false"));
}

void TextKind::read(const YamlNode& node, std::string& value) {
  value = scalar_text(node, "text");
}

void PathKind::read(const YamlNode& node, std::string& value) {
  const std::string& text = scalar_text(node, "a path");
  if (text == "~" || text.starts_with("~/")) {
    throw ValueError(path_in_quotes(text) + ": '~' is not expanded; write the whole path");
  }
  value = text;
}

void PathsKind::read(const YamlNode& node,
                     std::pair<std::string&, std::vector<std::string>&> value) const {
  if (node.kind != YamlNode::Kind::kSequence) {
    PathKind::read(node, value.first);
    value.second.clear();
    return;
  }
  std::vector<std::string> given;
  for (const auto& item : node.items) {
    PathKind::read(item, given.emplace_back());
    if (given.back().empty()) {
      throw ValueError("holds an empty path; remove it");
    }
  }
  if (given.empty()) {
    throw ValueError("must not be empty; write " + std::string(what));
  }
  value.first = given.front();
  value.second.assign(given.begin() + 1, given.end());
}

std::string PathsKind::write(std::pair<const std::string&, const std::vector<std::string>&> value) {
  if (value.second.empty()) {
    return PathKind::write(value.first);
  }
  std::string out = PathKind::write(value.first);
  for (const auto& item : value.second) {
    out += ", " + PathKind::write(item);
  }
  return "[" + out + "]";
}

ChoiceKind<std::string> words(std::initializer_list<std::string_view> names) {
  ChoiceKind<std::string> kind;
  for (const auto name : names) {
    kind.choices.emplace_back(name, std::string(name));
  }
  return kind;
}

void AmountKind::read(const YamlNode& node, Amount& value) const {
  const std::string& text = scalar_text(node, "an amount such as " + std::string(examples));
  if (looks_like_number(text)) {
    unquoted_text(node, "the number");
  }
  if (const auto number = number_part(text); !number.empty()) {
    parse_real(number);  // refuses 1_000 and 010 with the spelling to use
  }
  const Amount amount = read_amount(text, bare.value_or(Unit::kSamples));
  // Without a unit, the one that is handed in comes back.
  const bool has_unit = amount.unit == read_amount(text, Unit::kTokens).unit &&
                        amount.unit == read_amount(text, Unit::kMinutes).unit;
  if (!has_unit && !bare && amount.value != 0) {
    throw ValueError(in_quotes(text) + " has no unit; write for instance " + std::string(examples));
  }
  if (std::find(units.begin(), units.end(), amount.unit) == units.end()) {
    throw ValueError(fmt::format("{} cannot be in {}; write for instance {}", in_quotes(text),
                                 unit_name(amount.unit), examples));
  }
  const bool countable =
      amount.unit == Unit::kSamples || amount.unit == Unit::kTokens || amount.unit == Unit::kSteps;
  if (countable && amount.value != std::floor(amount.value)) {
    throw ValueError(
        fmt::format("{} must be a whole number of {}", in_quotes(text), unit_name(amount.unit)));
  }
  constexpr double kLargest = 1e15;
  if (amount.value > kLargest || (amount.unit == Unit::kFraction && amount.value > 1)) {
    throw ValueError(in_quotes(text) + " is too large");
  }
  if (positive && amount.value <= 0) {
    throw ValueError(
        fmt::format("{} must be more than 0; write for instance {}", in_quotes(text), examples));
  }
  value = amount;
}

std::string AmountKind::write(const Amount& value) {
  if (value.unit == Unit::kFraction) {
    return percent_text(value.value);
  }
  return fmt::format("{} {}", real_text(value.value), unit_name(value.unit));
}

std::string AmountKind::form() const {
  std::string form = "amount in ";
  for (std::size_t i = 0; i < units.size(); ++i) {
    form += (i == 0                  ? ""
             : i + 1 == units.size() ? " or "
                                     : ", ") +
            std::string(unit_name(units[i]));
  }
  return bare ? fmt::format("{}; a bare number is {}", form, unit_name(*bare)) : form;
}

void PairKind::read(const YamlNode& node, std::pair<double&, double&> value) const {
  if (node.kind != YamlNode::Kind::kSequence || node.items.size() != 2) {
    throw ValueError("expects a list of two numbers, as in [0.9, 0.999]");
  }
  kind.read(node.items[0], value.first);
  kind.read(node.items[1], value.second);
}

std::string PairKind::write(std::pair<const double&, const double&> value) {
  std::string out(1, '[');
  return out.append(real_text(value.first))
      .append(", ")
      .append(real_text(value.second))
      .append("]");
}

void IntegerListKind::read(const YamlNode& node, std::vector<std::int64_t>& value) const {
  const IntegerKind one{low, high};
  std::vector<std::int64_t> given;
  if (node.kind == YamlNode::Kind::kSequence) {
    for (const auto& item : node.items) {
      one.read(item, given.emplace_back());
    }
  } else if (node.kind != YamlNode::Kind::kNull) {
    one.read(node, given.emplace_back());
  }
  if (given.empty()) {
    throw ValueError("must not be empty; write " + form());
  }
  value = std::move(given);
}

std::string IntegerListKind::write(const std::vector<std::int64_t>& value) {
  std::string out;
  for (const auto item : value) {
    out += (out.empty() ? "" : ", ") + std::to_string(item);
  }
  return "[" + out + "]";
}

void RealListKind::read(const YamlNode& node, std::vector<double>& value) const {
  const RealKind one{low, false, high, false};
  std::vector<double> given;
  if (node.kind == YamlNode::Kind::kSequence) {
    for (const auto& item : node.items) {
      one.read(item, given.emplace_back());
    }
  } else if (node.kind != YamlNode::Kind::kNull) {
    one.read(node, given.emplace_back());
  }
  value = std::move(given);
}

std::string RealListKind::write(const std::vector<double>& value) {
  std::string out;
  for (const auto item : value) {
    out += (out.empty() ? "" : ", ") + RealKind::write(item);
  }
  return "[" + out + "]";
}

void TextListKind::read(const YamlNode& node, std::vector<std::string>& value) const {
  std::vector<std::string> given;
  if (node.kind == YamlNode::Kind::kSequence) {
    for (const auto& item : node.items) {
      given.push_back(scalar_text(item, "text"));
    }
  } else if (node.kind != YamlNode::Kind::kNull) {
    given.push_back(scalar_text(node, "a list of texts"));
  }
  if (given.empty() && !may_be_empty) {
    throw ValueError("must not be empty; write " + std::string(what));
  }
  if (std::find(given.begin(), given.end(), std::string()) != given.end()) {
    throw ValueError("holds an empty text; remove it");
  }
  value = std::move(given);
}

std::string TextListKind::write(const std::vector<std::string>& value) {
  std::string out;
  for (const auto& item : value) {
    out += (out.empty() ? "" : ", ") + yaml_text(item);
  }
  return "[" + out + "]";
}

}  // namespace lorascale::config
