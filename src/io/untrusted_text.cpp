#include "io/untrusted_text.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lorascale::io {

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kShown = 120;
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string shown = "\"";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      shown += "\\x";
      shown += kDigits[byte >> 4];
      shown += kDigits[byte & 15];
    } else {
      shown += c;
    }
  }
  if (text.size() > kShown) {
    shown += "...";
  }
  return shown + '"';
}

std::string json_text(std::string_view text) {
  using Json = nlohmann::json;
  const std::string clean = Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
  return Json::parse(clean).get<std::string>();
}

bool is_plain_file_name(std::string_view name) {
  constexpr std::size_t kLongestName = 255;  // NAME_MAX of every Linux file system in use
  if (name.empty() || name.size() > kLongestName || name == "." || name == "..") {
    return false;
  }
  return std::none_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7F || c == '/' || c == '\\';
  });
}

}  // namespace lorascale::io
