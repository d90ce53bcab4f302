// Pictures as PNG files, with texts of what they are (chunks tEXt), as interfaces for Stable
// Diffusion read and write them.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace lorascale::io {

// `pixels`: [height, width, 3], red, green, blue. Texts by their keywords, in UTF-8 (iTXt where
// they are more than Latin-1).
std::string encode_png_file(std::span<const std::uint8_t> pixels, std::int64_t height,
                            std::int64_t width, const std::map<std::string, std::string>& texts);

}  // namespace lorascale::io
