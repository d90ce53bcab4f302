// The kinds of values that options have. A kind reads one YAML node into one C++ value, writes it
// back exactly, and says in words what it takes. read() throws ValueError; what it leaves then is
// unspecified.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/units.hpp"
#include "config/numbers.hpp"
#include "config/text.hpp"
#include "config/yaml_tree.hpp"

namespace lorascale::config {

// The text of a scalar node; `what` says what belongs there ("a whole number").
const std::string& scalar_text(const YamlNode& node, std::string_view what);
// The same for numbers and switches, which must not be quoted.
const std::string& unquoted_text(const YamlNode& node, std::string_view what);

// Calls `read` with the node and, where that throws and something in the node is quoted, once more
// with the quotes taken off: "2e-4" is a number to everybody but YAML. Returns whether that was
// needed.
bool read_leniently(const YamlNode& node, const std::function<void(const YamlNode&)>& read);
constexpr std::string_view kQuotesDropped = "read without the quotes, which make a text of it";

struct IntegerKind {
  std::int64_t low;
  std::int64_t high = std::int64_t{1} << 40;
  void read(const YamlNode& node, std::int64_t& value) const;
  static std::string write(std::int64_t value) { return std::to_string(value); }
  [[nodiscard]] std::string form() const { return "whole number >= " + std::to_string(low); }
};

struct SeedKind {
  static void read(const YamlNode& node, std::uint64_t& value);
  static std::string write(std::uint64_t value) { return std::to_string(value); }
  static std::string form() { return "whole number >= 0"; }
};

// An interval; an end that is open does not belong to it.
struct RealKind {
  double low;
  bool low_open = false;
  double high = std::numeric_limits<double>::infinity();
  bool high_open = true;
  void read(const YamlNode& node, double& value) const;
  static std::string write(double value) { return real_text(value); }
  [[nodiscard]] std::string form() const;
};

struct BooleanKind {
  static void read(const YamlNode& node, bool& value);
  static std::string write(bool value) { return value ? "true" : "false"; }
  static std::string form() { return "true | false"; }
};

struct TextKind {
  std::string_view what = "text";
  static void read(const YamlNode& node, std::string& value);
  static std::string write(const std::string& value) { return yaml_text(value); }
  [[nodiscard]] std::string form() const { return std::string(what); }
};

// Relative to the working directory, wherever the configuration itself lies.
struct PathKind {
  std::string_view what = "path";
  static void read(const YamlNode& node, std::string& value);
  static std::string write(const std::string& value) { return yaml_text(value); }
  [[nodiscard]] std::string form() const { return std::string(what); }
};

// One word of a list. The words are those of what exists, so a refusal lists it.
template <class Value>
struct ChoiceKind {
  std::vector<std::pair<std::string_view, Value>> choices;

  void read(const YamlNode& node, Value& value) const {
    const std::string& text = scalar_text(node, "one of " + form());
    for (const auto& [name, meaning] : choices) {
      if (name == text) {
        value = meaning;
        return;
      }
    }
    throw ValueError(in_quotes(text) + " is not offered; write " + form());
  }
  [[nodiscard]] std::string write(const Value& value) const {
    for (const auto& [name, meaning] : choices) {
      if (meaning == value) {
        return std::string(name);
      }
    }
    if constexpr (std::is_same_v<Value, std::string>) {
      return yaml_text(value);  // made in code; read() refuses it, so validation finds it
    } else {
      return "\"\"";
    }
  }
  [[nodiscard]] std::string form() const {
    std::string list;
    for (const auto& choice : choices) {
      list += (list.empty() ? "" : " | ") + std::string(choice.first);
    }
    return list;
  }
};
template <class Value>
ChoiceKind<Value> choice(std::vector<std::pair<std::string_view, Value>> choices) {
  return {std::move(choices)};
}
ChoiceKind<std::string> words(std::initializer_list<std::string_view> names);

// A value that may be absent, written as `absent` ("null" or "auto").
template <class Kind>
struct OptionalKind {
  Kind kind;
  std::string_view absent = "null";

  template <class Value>
  void read(const YamlNode& node, std::optional<Value>& value) const {
    const bool scalar = node.kind == YamlNode::Kind::kScalar && !node.quoted;
    if (node.kind == YamlNode::Kind::kNull || (scalar && node.text == absent)) {
      value.reset();
      return;
    }
    // "no" would be a file of that name, and an unhelpful error for anything else.
    const bool reserved = scalar && is_reserved_word(node.text);
    if (reserved && std::is_same_v<Value, std::string>) {
      throw no_value(node.text);
    }
    Value given{};
    try {
      kind.read(node, given);
    } catch (const ValueError&) {
      if (reserved && !std::is_same_v<Value, bool>) {  // to a switch "off" says false, not nothing
        throw no_value(node.text);
      }
      throw;
    }
    value = std::move(given);
  }
  template <class Value>
  std::string write(const std::optional<Value>& value) const {
    return value ? kind.write(*value) : std::string(absent);
  }
  [[nodiscard]] std::string form() const { return kind.form() + " | " + std::string(absent); }
  [[nodiscard]] ValueError no_value(const std::string& word) const {
    return ValueError(in_quotes(word) + " is no value here; for none, write " +
                      std::string(absent));
  }
};

// Which units an amount may have, and what a number without a unit means.
struct AmountKind {
  std::vector<Unit> units;
  std::optional<Unit> bare;  // nothing: a bare number other than 0 is refused as ambiguous
  bool positive = false;
  std::string_view examples;
  void read(const YamlNode& node, Amount& value) const;
  static std::string write(const Amount& value);
  [[nodiscard]] std::string form() const;
};

// [beta1, beta2], two members under one key.
struct PairKind {
  RealKind kind;
  void read(const YamlNode& node, std::pair<double&, double&> value) const;
  static std::string write(std::pair<const double&, const double&> value);
  [[nodiscard]] std::string form() const { return "[a, b], each " + kind.form(); }
};

// One path, or a list of them without empty ones: the first, and what follows it.
struct PathsKind {
  std::string_view what = "paths";
  void read(const YamlNode& node, std::pair<std::string&, std::vector<std::string>&> value) const;
  static std::string write(std::pair<const std::string&, const std::vector<std::string>&> value);
  [[nodiscard]] std::string form() const { return std::string(what); }
};

// A list of texts; one text alone is a list of one.
struct TextListKind {
  bool may_be_empty;
  std::string_view what;
  void read(const YamlNode& node, std::vector<std::string>& value) const;
  static std::string write(const std::vector<std::string>& value);
  [[nodiscard]] std::string form() const { return std::string(what); }
};

// [2, 2, 2]; never empty.
struct IntegerListKind {
  std::int64_t low;
  std::int64_t high;
  void read(const YamlNode& node, std::vector<std::int64_t>& value) const;
  static std::string write(const std::vector<std::int64_t>& value);
  [[nodiscard]] std::string form() const {
    return "[whole numbers >= " + std::to_string(low) + "]";
  }
};

// [0, 0.5, 1]; may be empty.
struct RealListKind {
  double low;
  double high;
  void read(const YamlNode& node, std::vector<double>& value) const;
  static std::string write(const std::vector<double>& value);
  [[nodiscard]] std::string form() const { return "[numbers, ...]"; }
};

// {pattern: value, ...}
template <class Kind>
struct MapKind {
  Kind kind;
  std::string_view key = "pattern";
  std::string_view example = "{q_proj: 16}";

  template <class Value>
  void read(const YamlNode& node, std::map<std::string, Value>& value) const {
    std::map<std::string, Value> given;
    if (node.kind != YamlNode::Kind::kMap && node.kind != YamlNode::Kind::kNull) {
      throw ValueError("expects a map, as in " + std::string(example));
    }
    for (const auto& entry : node.entries) {
      try {
        kind.read(entry.value, given[entry.key]);
      } catch (const ValueError& error) {
        throw ValueError("at " + in_quotes(entry.key) + ": " + error.what());
      }
    }
    value = std::move(given);
  }
  template <class Value>
  std::string write(const std::map<std::string, Value>& value) const {
    std::string out;
    for (const auto& [key, item] : value) {
      out += (out.empty() ? "" : ", ") + yaml_text(key) + ": " + kind.write(item);
    }
    return "{" + out + "}";
  }
  [[nodiscard]] std::string form() const {
    return "{" + std::string(key) + ": " + kind.form() + ", ...}";
  }
};

}  // namespace lorascale::config
