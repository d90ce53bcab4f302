#include "io/strict_json.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.hpp"
#include "io/file_descriptor.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::io {
namespace {

using nlohmann::json;

// Numbers and literals; the longest shortest-form double has 24 characters, published configs 31.
constexpr std::size_t kMaxBareTokenBytes = 128;

[[noreturn]] void throw_limit(const std::string& where, const std::string& what,
                              std::size_t limit) {
  throw_bad_input(where + ": JSON " + what + " (the limit is " + std::to_string(limit) +
                  "): the file is damaged or not what it claims to be; get a fresh copy");
}

bool ends_bare_token(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == ',' || c == ':' || c == '"' ||
         c == '[' || c == ']' || c == '{' || c == '}';
}

// The end of the string whose first byte after the quote is at `i`, or the end of the text.
std::size_t skip_string(std::string_view text, std::size_t i) {
  while (i < text.size() && text[i] != '"') {
    i += text[i] == '\\' ? 2 : 1;
  }
  return std::min(i, text.size());
}

std::size_t skip_bare_token(std::string_view text, std::size_t i) {
  while (i < text.size() && !ends_bare_token(text[i])) {
    ++i;
  }
  return i;
}

// Counted from 1, as editors do.
std::string position(std::string_view text, std::size_t index) {
  const std::string_view before = text.substr(0, index);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t last_break = before.rfind('\n');
  const std::size_t line_start = last_break == std::string_view::npos ? 0 : last_break + 1;
  const std::size_t column = before.size() - line_start + 1;
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

// The library's reason without its preamble and without the offending text, which may be hostile.
std::string reason_of(const json::exception& error) {
  std::string reason = error.what();
  for (const std::string_view marker : {"syntax error ", "invalid string: ", "] "}) {
    if (const std::size_t at = reason.rfind(marker); at != std::string::npos) {
      reason.erase(0, marker == "invalid string: " ? at : at + marker.size());
      break;
    }
  }
  if (const std::size_t at = reason.find("; last read"); at != std::string::npos) {
    reason.erase(at);
  }
  std::erase_if(reason, [](char c) { return c < 0x20 || c == 0x7F; });
  return reason;
}

// Hands all events on, and turns a syntax error into ours.
class ReportingHandler : public nlohmann::json_sax<json> {
 public:
  ReportingHandler(std::string_view text, const std::string& where, nlohmann::json_sax<json>& inner)
      : text_(text), where_(where), inner_(inner) {}

  bool null() override { return inner_.null(); }
  bool boolean(bool value) override { return inner_.boolean(value); }
  bool number_integer(number_integer_t value) override { return inner_.number_integer(value); }
  bool number_unsigned(number_unsigned_t value) override { return inner_.number_unsigned(value); }
  bool number_float(number_float_t value, const string_t& raw) override {
    return inner_.number_float(value, raw);
  }
  bool string(string_t& value) override { return inner_.string(value); }
  bool binary(binary_t& value) override { return inner_.binary(value); }
  bool start_object(std::size_t count) override { return inner_.start_object(count); }
  bool key(string_t& name) override { return inner_.key(name); }
  bool end_object() override { return inner_.end_object(); }
  bool start_array(std::size_t count) override { return inner_.start_array(count); }
  bool end_array() override { return inner_.end_array(); }
  bool parse_error(std::size_t offset, const std::string& /*last_token*/,
                   const json::exception& error) override {
    // `offset` is behind the character that was one too many.
    throw_bad_input(where_ + ": not valid JSON at " + position(text_, offset > 0 ? offset - 1 : 0) +
                    " (" + reason_of(error) + "): mend the file or get a fresh copy");
  }

 private:
  std::string_view text_;
  const std::string& where_;
  nlohmann::json_sax<json>& inner_;
};

// Builds the value, refusing a key that an object already has.
class TreeBuilder : public nlohmann::json_sax<json> {
 public:
  TreeBuilder(json& root, const std::string& where) : root_(root), where_(where) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& /*raw*/) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }  // JSON text has none
  bool start_object(std::size_t /*count*/) override { return open(json::object()); }
  bool start_array(std::size_t /*count*/) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (open_.back()->contains(name)) {
      throw_bad_input(where_ + ": the key " + in_quotes(name) +
                      " appears twice in one object: remove one of the two");
    }
    slot_ = &(*open_.back())[name];
    return true;
  }
  bool parse_error(std::size_t /*offset*/, const std::string& /*last_token*/,
                   const json::exception& /*error*/) override {
    return false;  // ReportingHandler has thrown before
  }

 private:
  json* place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    *slot_ = std::move(value);
    return slot_;
  }
  bool add(json value) {
    place(std::move(value));
    return true;
  }
  // A container is reached by pointer until it is closed; only its own contents can move meanwhile.
  bool open(json value) {
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  json& root_;
  const std::string& where_;
  std::vector<json*> open_;
  json* slot_ = nullptr;
};

}  // namespace

void check_json_limits(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    throw_limit(where, "has " + std::to_string(text.size()) + " bytes", limits.max_bytes);
  }
  int depth = 0;
  std::size_t values = 1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      const std::size_t end = skip_string(text, i + 1);
      if (end - i - 1 > limits.max_string_bytes) {
        throw_limit(where, "has a string of more than the allowed bytes at " + position(text, i),
                    limits.max_string_bytes);
      }
      i = end;
    } else if (c == '{' || c == '[') {
      ++values;
      if (++depth > limits.max_depth) {
        throw_limit(where, "is nested too deep at " + position(text, i),
                    static_cast<std::size_t>(limits.max_depth));
      }
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == ',') {
      ++values;
    } else if (!ends_bare_token(c)) {
      const std::size_t end = skip_bare_token(text, i);
      if (end - i > kMaxBareTokenBytes) {
        throw_limit(where, "has an overlong number or word at " + position(text, i),
                    kMaxBareTokenBytes);
      }
      i = end - 1;
    }
    if (values > limits.max_values) {
      throw_limit(where, "has too many values", limits.max_values);
    }
  }
}

void parse_json_events(std::string_view text, const std::string& where, const JsonLimits& limits,
                       nlohmann::json_sax<json>& handler) {
  if (text.starts_with("\xEF\xBB\xBF")) {
    throw_bad_input(where + ": starts with a byte order mark: save it as UTF-8 without one");
  }
  // The library takes a NUL for the end of the text and would not see what follows.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw_bad_input(where + ": not valid JSON at " + position(text, nul) +
                    " (a NUL character): mend the file or get a fresh copy");
  }
  check_json_limits(text, where, limits);
  ReportingHandler reporting(text, where, handler);
  const bool complete = json::sax_parse(text.begin(), text.end(), &reporting);
  LS_ASSERT(complete);
}

json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  json root;
  TreeBuilder builder(root, where);
  parse_json_events(text, where, limits, builder);
  return root;
}

json read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path.string(), limits);
}

nlohmann::ordered_json read_ordered_json_file(const std::filesystem::path& path,
                                              const JsonLimits& limits) {
  const auto text = read_file(path, limits.max_bytes);
  static_cast<void>(parse_json(text, path.string(), limits));
  return nlohmann::ordered_json::parse(text);
}

}  // namespace lorascale::io
