// What an image file (docs/images.md) says of itself: attributes and sizes, no content.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "io/hdf5_file.hpp"

namespace lorascale::data {

inline constexpr const char* kImageFileMaker = "scripts/prepare_images.py";

struct ImageShape {
  std::int64_t channels = 0, height = 0, width = 0;

  [[nodiscard]] std::int64_t values() const { return channels * height * width; }
  [[nodiscard]] std::string text() const;  // "1 x 28 x 28"
  friend bool operator==(const ImageShape&, const ImageShape&) = default;
};

struct ImageHeader {
  ImageShape shape;
  std::int64_t images = 0;
  std::int64_t classes = 0;
};

// Error(kBadInput) where the file is no image file of this version, its sizes disagree, or are
// beyond what a real one has: what is read of it later is bounded by them.
ImageHeader read_image_header(const io::Hdf5File& file, const std::filesystem::path& path);

}  // namespace lorascale::data
