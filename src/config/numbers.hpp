// Numbers and booleans as a configuration writes them: decimal, independent of the locale, never
// guessed. What YAML readers disagree about (010, 1_000, 0x10, 1e3 as an integer, yes, off) is
// refused with the spelling to use instead.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lorascale::config {

// Throw ValueError.
std::int64_t parse_integer(std::string_view text);
std::uint64_t parse_unsigned(std::string_view text);
double parse_real(std::string_view text);  // finite
bool parse_boolean(std::string_view text);

// Whether `text` has the form of a decimal number: [+-] digits [. digits] [e [+-] digits].
bool looks_like_number(std::string_view text);

// Whether a YAML reader of some version would take the bare word as true, false or null.
bool is_reserved_word(std::string_view text);

// A short text that reads back as exactly `value`: "16", "0.5", "2.0e-04" (with a point and a sign,
// so that readers of YAML 1.1 see a number too).
std::string real_text(double value);

}  // namespace lorascale::config
