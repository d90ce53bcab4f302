#include "io/png_writer.hpp"

#include <zlib.h>

#include <algorithm>
#include <string_view>

#include "base/error.hpp"

namespace lorascale::io {
namespace {

void add_number(std::string& to, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    to.push_back(static_cast<char>(value >> shift));
  }
}

void add_chunk(std::string& to, std::string_view type, std::string_view data) {
  add_number(to, static_cast<std::uint32_t>(data.size()));
  std::string checked(type);
  checked += data;
  to += checked;
  add_number(to, static_cast<std::uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(checked.data()),
                                                  static_cast<uInt>(checked.size()))));
}

std::string compressed(const std::string& data) {
  auto size = compressBound(static_cast<uLong>(data.size()));
  std::string result(size, '\0');
  const int status = compress2(reinterpret_cast<Bytef*>(result.data()), &size,
                               reinterpret_cast<const Bytef*>(data.data()),
                               static_cast<uLong>(data.size()), Z_DEFAULT_COMPRESSION);
  LS_ASSERT(status == Z_OK);
  result.resize(size);
  return result;
}

// Each row as its difference to the one above (filter 2), which smooth pictures compress well by.
std::string filtered(std::span<const std::uint8_t> pixels, std::int64_t height,
                     std::int64_t width) {
  const auto row = static_cast<std::size_t>(3 * width);
  std::string data;
  data.reserve(static_cast<std::size_t>(height) * (row + 1));
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    data.push_back(2);
    for (std::size_t x = 0; x < row; ++x) {
      const int above = y > 0 ? pixels[(y - 1) * row + x] : 0;
      data.push_back(static_cast<char>(pixels[y * row + x] - above));
    }
  }
  return data;
}

}  // namespace

std::string encode_png_file(std::span<const std::uint8_t> pixels, std::int64_t height,
                            std::int64_t width, const std::map<std::string, std::string>& texts) {
  LS_ASSERT(std::ssize(pixels) == 3 * height * width);
  std::string file = "\x89PNG\r\n\x1a\n";
  std::string header;
  add_number(header, static_cast<std::uint32_t>(width));
  add_number(header, static_cast<std::uint32_t>(height));
  header += {8, 2, 0, 0, 0};  // bits, colours, compression, filters, not interlaced
  add_chunk(file, "IHDR", header);
  for (const auto& [keyword, text] : texts) {
    const bool ascii = std::ranges::all_of(text, [](unsigned char c) { return c < 0x80; });
    if (ascii) {
      add_chunk(file, "tEXt", keyword + '\0' + text);
    } else {
      // Not compressed, of no language, no other keyword.
      add_chunk(file, "iTXt", keyword + std::string(5, '\0') + text);
    }
  }
  add_chunk(file, "IDAT", compressed(filtered(pixels, height, width)));
  add_chunk(file, "IEND", "");
  return file;
}

}  // namespace lorascale::io
