#include "config/text.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace lorascale::config {
namespace {

struct Utf8Form {
  unsigned char lead_mask, lead_value;
  std::size_t length;
  char32_t smallest;  // anything below is an overlong form
};
constexpr std::array kUtf8Forms = {Utf8Form{0x80, 0x00, 1, 0x0}, Utf8Form{0xE0, 0xC0, 2, 0x80},
                                   Utf8Form{0xF0, 0xE0, 3, 0x800},
                                   Utf8Form{0xF8, 0xF0, 4, 0x10000}};

// Bytes of the well-formed character at the start of `text`, or 0.
std::size_t utf8_character(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text.front());
  for (const auto& form : kUtf8Forms) {
    if ((lead & form.lead_mask) != form.lead_value) {
      continue;
    }
    if (text.size() < form.length) {
      return 0;
    }
    char32_t code = lead & static_cast<unsigned char>(~form.lead_mask);
    for (std::size_t i = 1; i < form.length; ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if ((byte & 0xC0) != 0x80) {
        return 0;
      }
      code = (code << 6) | (byte & 0x3F);
    }
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    return code >= form.smallest && code <= 0x10FFFF && !surrogate ? form.length : 0;
  }
  return 0;
}

void append_escaped(std::string& out, unsigned char byte) {
  static constexpr char kDigits[] = "0123456789abcdef";
  out += "\\x";
  out += kDigits[byte >> 4];
  out += kDigits[byte & 15];
}

}  // namespace

std::string in_quotes(std::string_view text, std::size_t shown_bytes) {
  std::string shown = "'";
  std::size_t at = 0;
  while (at < text.size() && at < shown_bytes) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const std::size_t length = utf8_character(text.substr(at));
    if (length == 0 || byte < 0x20 || byte == 0x7F) {
      append_escaped(shown, byte);
      ++at;
    } else {
      shown += text.substr(at, length);
      at += length;
    }
  }
  return shown + (at < text.size() ? "...'" : "'");
}

std::string path_in_quotes(std::string_view path) {
  constexpr std::size_t kLongestPath = 4096;  // PATH_MAX
  return in_quotes(path, kLongestPath);
}

std::optional<std::size_t> find_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t length = utf8_character(text.substr(at));
    if (length == 0) {
      return at;
    }
    at += length;
  }
  return std::nullopt;
}

// Optimal string alignment (Damerau 1964, Levenshtein 1966), three rows at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1);
  std::vector<std::size_t> above(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) {
    row[j] = j;
  }
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before.swap(above);
    above.swap(row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

std::optional<std::string> nearest(std::string_view name,
                                   const std::vector<std::string>& candidates) {
  constexpr std::size_t kLongestName = 64;  // no key is longer; bounds the work on hostile input
  if (name.empty() || name.size() > kLongestName) {
    return std::nullopt;
  }
  std::size_t smallest = std::numeric_limits<std::size_t>::max();
  const std::string* best = nullptr;
  for (const auto& candidate : candidates) {
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < smallest) {
      smallest = distance;
      best = &candidate;
    }
  }
  const std::size_t tolerated = std::max<std::size_t>(2, name.size() / 3);
  if (best == nullptr || smallest > tolerated || smallest >= name.size()) {
    return std::nullopt;
  }
  return *best;
}

}  // namespace lorascale::config
