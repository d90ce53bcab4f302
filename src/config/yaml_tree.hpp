// A guarded YAML reader on top of yaml-cpp's events. A configuration is data: anchors, aliases,
// tags, duplicate keys, several documents, deep nesting and stray control bytes are refused, each
// with its line. Scalars stay text; what they mean is decided by the option they belong to.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace lorascale::config {

constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

struct YamlEntry;

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };
  Kind kind = Kind::kNull;
  int line = 0;         // from 1
  bool quoted = false;  // scalar in '...', "..." or block form: text, never a number or a switch
  std::string text;     // kScalar, well-formed UTF-8 without NUL
  std::vector<YamlNode> items;     // kSequence
  std::vector<YamlEntry> entries;  // kMap, in file order, keys distinct

  static YamlNode scalar(std::string text, int line);
  static YamlNode sequence(std::vector<YamlNode> items, int line);
};

struct YamlEntry {
  std::string key;
  int line = 0;
  YamlNode value;
};

// What is wrong with the YAML itself, and in which line.
class YamlError : public std::runtime_error {
 public:
  YamlError(int line, const std::string& message) : std::runtime_error(message), line_(line) {}
  [[nodiscard]] int line() const noexcept { return line_; }

 private:
  int line_;
};

// The one document in `text`; an empty text is a null node. Throws YamlError. Time and memory are
// linear in the size of the text, which must not exceed kMaxConfigBytes.
YamlNode parse_yaml(std::string_view text);

// `text` as a double-quoted YAML scalar, or bare where every YAML reader takes that for the same
// text.
std::string yaml_text(std::string_view text);

}  // namespace lorascale::config
