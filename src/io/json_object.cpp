#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.hpp"
#include "io/strict_json.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {

using nlohmann::json;

JsonObject::JsonObject(const json& value, std::string where)
    : value_(&value), where_(std::move(where)) {
  if (!value.is_object()) {
    throw_bad_input(where_ + ": a JSON object {...} is needed here, found " + value.type_name());
  }
}

const json* JsonObject::find(std::string_view key) const {
  const auto found = value_->find(key);
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

void JsonObject::fail(std::string_view key, const std::string& problem) const {
  throw_bad_input(where_ + ": " + in_quotes(key) + " " + problem);
}

const json& JsonObject::raw(std::string_view key) const {
  const json* found = find(key);
  if (found == nullptr) {
    fail(key, "is missing: add it, or use a file of the right kind");
  }
  return *found;
}

const json& JsonObject::array(std::string_view key) const {
  const json& value = raw(key);
  if (!value.is_array()) {
    fail(key, std::string("must be a list, found ") + value.type_name());
  }
  return value;
}

std::int64_t JsonObject::to_integer(const json& value, std::string_view key, std::int64_t min,
                                    std::int64_t max) const {
  // Whole numbers beyond 64 bits arrive as floating point, those beyond 63 bits as unsigned.
  const bool is_whole = value.is_number_integer();
  const bool fits = is_whole && (!value.is_number_unsigned() ||
                                 value.get<std::uint64_t>() <= static_cast<std::uint64_t>(kAnyMax));
  const std::int64_t number = fits ? value.get<std::int64_t>() : 0;
  if (!fits || number < min || number > max) {
    std::string range;
    if (min != kAnyMin || max != kAnyMax) {
      range = max == kAnyMax ? " of at least " + std::to_string(min)
                             : " from " + std::to_string(min) + " to " + std::to_string(max);
    }
    fail(key, "must be a whole number" + range + ", found " +
                  (value.is_number() ? value.dump() : std::string(value.type_name())));
  }
  return number;
}

double JsonObject::to_number(const json& value, std::string_view key) const {
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    fail(key, std::string("must be a finite number, found ") + value.type_name());
  }
  return value.get<double>();
}

std::int64_t JsonObject::integer(std::string_view key, std::int64_t min, std::int64_t max) const {
  return to_integer(raw(key), key, min, max);
}

double JsonObject::number(std::string_view key) const {
  return to_number(raw(key), key);
}

bool JsonObject::boolean(std::string_view key) const {
  const json& value = raw(key);
  if (!value.is_boolean()) {
    fail(key, std::string("must be true or false, found ") + value.type_name());
  }
  return value.get<bool>();
}

std::string JsonObject::text(std::string_view key) const {
  const json& value = raw(key);
  if (!value.is_string()) {
    fail(key, std::string("must be a text in quotes, found ") + value.type_name());
  }
  return value.get<std::string>();
}

JsonObject JsonObject::object(std::string_view key) const {
  return JsonObject(raw(key), where_ + ": " + in_quotes(key));
}

std::vector<std::int64_t> JsonObject::integers(std::string_view key, std::int64_t min,
                                               std::int64_t max) const {
  std::vector<std::int64_t> values;
  for (const json& value : array(key)) {
    values.push_back(to_integer(value, key, min, max));
  }
  return values;
}

std::vector<double> JsonObject::numbers(std::string_view key) const {
  std::vector<double> values;
  for (const json& value : array(key)) {
    values.push_back(to_number(value, key));
  }
  return values;
}

std::vector<std::string> JsonObject::texts(std::string_view key) const {
  std::vector<std::string> values;
  for (const json& value : array(key)) {
    if (!value.is_string()) {
      fail(key, std::string("must be a list of texts, found ") + value.type_name() + " in it");
    }
    values.push_back(value.get<std::string>());
  }
  return values;
}

std::int64_t JsonObject::integer_or(std::string_view key, std::int64_t fallback, std::int64_t min,
                                    std::int64_t max) const {
  return has(key) ? integer(key, min, max) : fallback;
}

double JsonObject::number_or(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool JsonObject::boolean_or(std::string_view key, bool fallback) const {
  return has(key) ? boolean(key) : fallback;
}

std::string JsonObject::text_or(std::string_view key, std::string fallback) const {
  return has(key) ? text(key) : std::move(fallback);
}

void JsonObject::allow_only(std::initializer_list<std::string_view> known) const {
  for (const auto& item : value_->items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      fail(item.key(), "is not known here: remove it");
    }
  }
}

}  // namespace lorascale::io
