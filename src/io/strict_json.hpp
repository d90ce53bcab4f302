// JSON out of files of unknown origin. Stricter than the library below it: duplicate keys, deep
// nesting, oversized text, tokens or counts, and wrongly typed or wrapped numbers are errors, each
// naming file and key. Memory is bounded before the parser starts. All failures are
// Error(kBadInput).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace lorascale::io {

// What a text may use up. The defaults take the tokenizer of any published model.
struct JsonLimits {
  std::size_t max_bytes = std::size_t{64} << 20;
  std::size_t max_string_bytes = std::size_t{4} << 20;  // of one string, as written
  std::size_t max_values = 2'000'000;  // of all kinds, counted by commas and brackets
  int max_depth = 32;
};

// Checks the limits in one pass over the text, without allocating. Malformed text may pass: finding
// its faults is the parser's part. `where` (a file name) opens the message.
void check_json_limits(std::string_view text, const std::string& where, const JsonLimits& limits);

// Feeds `text` to a SAX handler of nlohmann-json after check_json_limits. The handler may throw. A
// syntax error (also bad UTF-8, a byte order mark, anything after the end) is reported with line
// and column.
void parse_json_events(std::string_view text, const std::string& where, const JsonLimits& limits,
                       nlohmann::json_sax<nlohmann::json>& handler);

nlohmann::json parse_json(std::string_view text, const std::string& where,
                          const JsonLimits& limits = {});
nlohmann::json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});
// The same with the keys of objects in the file's order.
nlohmann::ordered_json read_ordered_json_file(const std::filesystem::path& path,
                                              const JsonLimits& limits = {});

// Typed access to one JSON object. Refers to the value it was made from, which must outlive it.
// Where a key is `null` it counts as absent, as model configurations use it.
class JsonObject {
 public:
  static constexpr std::int64_t kAnyMin = std::numeric_limits<std::int64_t>::min();
  static constexpr std::int64_t kAnyMax = std::numeric_limits<std::int64_t>::max();

  // `where` is the file, and the key that leads here if any: both open every message.
  JsonObject(const nlohmann::json& value, std::string where);

  [[nodiscard]] bool has(std::string_view key) const { return find(key) != nullptr; }

  // The value of a key that must be there, within [min, max]. Integers take whole JSON numbers
  // without fraction or exponent; numbers take any finite one.
  [[nodiscard]] std::int64_t integer(std::string_view key, std::int64_t min = kAnyMin,
                                     std::int64_t max = kAnyMax) const;
  [[nodiscard]] double number(std::string_view key) const;
  [[nodiscard]] bool boolean(std::string_view key) const;
  [[nodiscard]] std::string text(std::string_view key) const;
  [[nodiscard]] JsonObject object(std::string_view key) const;
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key, std::int64_t min = kAnyMin,
                                                   std::int64_t max = kAnyMax) const;
  [[nodiscard]] std::vector<double> numbers(std::string_view key) const;
  [[nodiscard]] std::vector<std::string> texts(std::string_view key) const;

  // The same with a value for an absent key.
  [[nodiscard]] std::int64_t integer_or(std::string_view key, std::int64_t fallback,
                                        std::int64_t min = kAnyMin,
                                        std::int64_t max = kAnyMax) const;
  [[nodiscard]] double number_or(std::string_view key, double fallback) const;
  [[nodiscard]] bool boolean_or(std::string_view key, bool fallback) const;
  [[nodiscard]] std::string text_or(std::string_view key, std::string fallback) const;

  // Throws where the object has a key outside `known`.
  void allow_only(std::initializer_list<std::string_view> known) const;

  // The value behind a key of any type; must be there.
  [[nodiscard]] const nlohmann::json& raw(std::string_view key) const;
  [[nodiscard]] const nlohmann::json& value() const { return *value_; }
  [[nodiscard]] const std::string& where() const { return where_; }

  // For checks of the caller: "WHERE: KEY PROBLEM".
  [[noreturn]] void fail(std::string_view key, const std::string& problem) const;

 private:
  [[nodiscard]] const nlohmann::json* find(std::string_view key) const;
  [[nodiscard]] const nlohmann::json& array(std::string_view key) const;
  [[nodiscard]] std::int64_t to_integer(const nlohmann::json& value, std::string_view key,
                                        std::int64_t min, std::int64_t max) const;
  [[nodiscard]] double to_number(const nlohmann::json& value, std::string_view key) const;

  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace lorascale::io
