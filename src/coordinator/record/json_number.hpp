// Numbers as text: to_text for sentences, json_number for JSON, which has no way to write "not a
// number".
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lorascale::coordinator {

using Json = nlohmann::ordered_json;

// Six significant digits, the same on every machine and in every locale.
std::string to_text(double value);

// A number that keeps its bits, or the strings "nan", "inf", "-inf".
Json json_number(double value);
// The inverse. Throws Json::exception where `value` is neither.
double number_from_json(const Json& value);

// 16 hexadecimal digits: JSON readers lose the last bits of large integers.
std::string hex64(std::uint64_t value);
// The inverse. Throws Error(kBadInput) for anything else.
std::uint64_t hex64_from(std::string_view text);

}  // namespace lorascale::coordinator
