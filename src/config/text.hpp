// Text from a configuration of unknown origin: how it may appear in a message, whether it is clean
// enough to be parsed, and which known name a misspelt one probably meant. Pure functions.
#pragma once

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace lorascale::config {

// A value that does not fit its key. The message neither names the key nor the place: the reader
// adds both.
class ValueError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// `text` in single quotes, on one line, control characters and broken UTF-8 as \xNN, cut after
// about `shown_bytes`.
std::string in_quotes(std::string_view text, std::size_t shown_bytes = 80);

// A path in single quotes, whole as far as Linux takes one: its end is what tells files apart.
std::string path_in_quotes(std::string_view path);

// Offset of the first byte that is not well-formed UTF-8 (RFC 3629: no overlong forms, no
// surrogates).
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

// The candidate with the smallest edit distance to `name` (letters inserted, removed, replaced, or
// two neighbours swapped), or nothing where even that one is too far away to be what was meant.
std::optional<std::string> nearest(std::string_view name,
                                   const std::vector<std::string>& candidates);

// Number of edits between two names; the measure behind nearest().
std::size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace lorascale::config
