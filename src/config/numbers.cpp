#include "config/numbers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/error.hpp"
#include "config/text.hpp"

namespace lorascale::config {
namespace {

constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string_view without_sign(std::string_view text) {
  if (!text.empty() && (text.front() == '+' || text.front() == '-')) {
    text.remove_prefix(1);
  }
  return text;
}

// Takes the digits off the front of `text`; returns how many there were.
std::size_t skip_digits(std::string_view& text) {
  std::size_t count = 0;
  while (count < text.size() && is_digit(text[count])) {
    ++count;
  }
  text.remove_prefix(count);
  return count;
}

// "1_000", "1,000" or "1'000" without its separators; empty where it is nothing of the kind.
std::string without_separators(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c != '_' && c != ',' && c != '\'') {
      digits += c;
    }
  }
  const bool had_some = digits.size() < text.size();
  return had_some && is_digit(text.front()) && looks_like_number(digits) ? digits : std::string();
}

// Octal to some readers, decimal to others.
bool has_leading_zero(std::string_view text) {
  text = without_sign(text);
  return text.size() > 1 && text[0] == '0' && is_digit(text[1]);
}

std::string without_leading_zeros(std::string_view text) {
  const bool negative = text.front() == '-';
  text = without_sign(text);
  while (text.size() > 1 && text[0] == '0' && is_digit(text[1])) {
    text.remove_prefix(1);
  }
  return (negative ? "-" : "") + std::string(text);
}

// Refuses spellings that are numbers to some readers and not, or other ones, to the rest.
void refuse_ambiguous(std::string_view text) {
  if (const std::string digits = without_separators(text); !digits.empty()) {
    throw ValueError(in_quotes(text) + " has separators inside the number; write " + digits);
  }
  const std::string_view magnitude = without_sign(text);
  if (magnitude.size() > 1 && magnitude[0] == '0' &&
      std::string_view("xXoObB").find(magnitude[1]) != std::string_view::npos) {
    throw ValueError(in_quotes(text) + " is not decimal; write the number in decimal digits");
  }
  if (looks_like_number(text) && has_leading_zero(text)) {
    throw ValueError(
        fmt::format("{} begins with a zero, which some readers take as octal; write {}",
                    in_quotes(text), without_leading_zeros(text)));
  }
}

template <class Integer>
Integer parse_whole(std::string_view text) {
  refuse_ambiguous(text);
  std::string_view digits = without_sign(text);
  const bool whole = skip_digits(digits) > 0 && digits.empty();
  if (whole) {
    const std::string_view body = text.front() == '+' ? text.substr(1) : text;
    Integer value = 0;
    const auto [end, status] = std::from_chars(body.data(), body.data() + body.size(), value);
    if (status == std::errc() && end == body.data() + body.size()) {
      return value;
    }
    throw ValueError(in_quotes(text) + " is out of range");
  }
  if (looks_like_number(text)) {
    constexpr double kLargestExact = 9007199254740992.0;  // 2^53
    const double value = parse_real(text);
    if (value == std::floor(value) && std::abs(value) <= kLargestExact) {
      throw ValueError(fmt::format("{} must be written as a whole number; write {}",
                                   in_quotes(text), static_cast<std::int64_t>(value)));
    }
  }
  throw ValueError(in_quotes(text) + " is not a whole number");
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return lower;
}

constexpr std::array kTrueWords = {"true", "yes", "on", "y", "1"};
constexpr std::array kFalseWords = {"false", "no", "off", "n", "0"};

bool among(const std::array<const char*, 5>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

bool looks_like_number(std::string_view text) {
  text = without_sign(text);
  std::size_t digits = skip_digits(text);
  if (!text.empty() && text.front() == '.') {
    text.remove_prefix(1);
    digits += skip_digits(text);
  }
  if (digits == 0) {
    return false;
  }
  if (!text.empty() && (text.front() == 'e' || text.front() == 'E')) {
    text.remove_prefix(1);
    text = without_sign(text);
    return skip_digits(text) > 0 && text.empty();
  }
  return text.empty();
}

bool is_reserved_word(std::string_view text) {
  const std::string word = lower_case(text);
  const bool boolean = among(kTrueWords, word) || among(kFalseWords, word);
  return (boolean && !is_digit(word.front())) || word == "null" || word == "none" || word == "~" ||
         word.empty();
}

std::int64_t parse_integer(std::string_view text) {
  return parse_whole<std::int64_t>(text);
}

std::uint64_t parse_unsigned(std::string_view text) {
  if (!text.empty() && text.front() == '-') {
    throw ValueError(in_quotes(text) + " must not be negative");
  }
  return parse_whole<std::uint64_t>(text);
}

double parse_real(std::string_view text) {
  refuse_ambiguous(text);
  if (!looks_like_number(text)) {
    const std::string word = lower_case(without_sign(text));
    if (word == ".inf" || word == "inf" || word == ".nan" || word == "nan") {
      throw ValueError(in_quotes(text) + " is not finite; write a decimal number");
    }
    throw ValueError(in_quotes(text) + " is not a number");
  }
  const std::string_view body = text.front() == '+' ? text.substr(1) : text;
  double value = 0;
  const auto [end, status] = std::from_chars(body.data(), body.data() + body.size(), value);
  if (status != std::errc() || end != body.data() + body.size() || !std::isfinite(value)) {
    throw ValueError(in_quotes(text) + " cannot be held in double precision");
  }
  return value;
}

bool parse_boolean(std::string_view text) {
  if (text == "true") {
    return true;
  }
  if (text == "false") {
    return false;
  }
  const std::string word = lower_case(text);
  if (among(kTrueWords, word)) {
    throw ValueError(in_quotes(text) + " is not a switch; write true");
  }
  if (among(kFalseWords, word)) {
    throw ValueError(in_quotes(text) + " is not a switch; write false");
  }
  throw ValueError(in_quotes(text) + " is neither true nor false");
}

std::string real_text(double value) {
  constexpr double kLargestWhole = 1e15;  // exact, and still read at a glance
  if (value == std::floor(value) && std::abs(value) < kLargestWhole && !std::signbit(value)) {
    return std::to_string(static_cast<std::int64_t>(value));
  }
  std::array<char, 32> buffer{};
  const auto [end, status] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  LS_ASSERT(status == std::errc());
  std::string text(buffer.data(), end);
  const auto exponent = text.find('e');
  if (exponent != std::string::npos && text.find('.') == std::string::npos) {
    text.insert(exponent, ".0");
  }
  return text;
}

}  // namespace lorascale::config
