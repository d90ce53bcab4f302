// Text out of files of unknown origin: how it may appear in a message, and which names may become
// the name of a file. Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace lorascale::io {

// `text` in double quotes, on one line, in printable ASCII (other bytes as \xNN), cut after 120
// bytes.
std::string in_quotes(std::string_view text);

// `text` as JSON may hold it: what is no UTF-8 (names of files may be any bytes) is replaced.
std::string json_text(std::string_view text);

// Whether `name` can be opened inside a folder without leaving it: 1 to 255 bytes, neither "." nor
// "..", no separator of any system, no NUL and no other control character.
bool is_plain_file_name(std::string_view name);

}  // namespace lorascale::io
