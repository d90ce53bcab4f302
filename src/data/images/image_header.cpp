#include "data/images/image_header.hpp"

#include <fmt/format.h>

#include "base/error.hpp"

namespace lorascale::data {
namespace {

constexpr std::int64_t kMaxValues = std::int64_t{1} << 28;  // of a picture
constexpr std::int64_t kMaxImages = std::int64_t{1} << 26;
constexpr std::int64_t kMaxClasses = 65536;  // labels are u16
constexpr std::int64_t kMaxClassBytes = std::int64_t{1} << 24;

ImageShape read_shape(const io::Hdf5File& file, const std::string& name) {
  const auto side = [&](const char* attribute) {
    const auto value = file.integer_attribute(attribute).value_or(0);
    if (value < 1 || value > kMaxValues) {
      throw_bad_input(fmt::format("{}: attribute {} is {}; make the file again with {}", name,
                                  attribute, value, kImageFileMaker));
    }
    return value;
  };
  const ImageShape shape{side("channels"), side("height"), side("width")};
  // In steps that cannot overflow.
  if (shape.channels * shape.height > kMaxValues || shape.values() > kMaxValues) {
    throw_bad_input(fmt::format(
        "{} says that its pictures are of {}, more than the {} values that one may have; make "
        "smaller ones with {} --size",
        name, shape.text(), kMaxValues, kImageFileMaker));
  }
  return shape;
}

}  // namespace

std::string ImageShape::text() const {
  return fmt::format("{} x {} x {}", channels, height, width);
}

ImageHeader read_image_header(const io::Hdf5File& file, const std::filesystem::path& path) {
  const std::string name = path.string();
  if (file.text_attribute("format").value_or("") != "lorascale-images") {
    throw_bad_input(fmt::format("{} is no image file (attribute format); make one with {}", name,
                                kImageFileMaker));
  }
  const auto version = file.integer_attribute("version").value_or(0);
  if (version != 1) {
    throw_bad_input(fmt::format(
        "{} has version {}; this program reads version 1, make the file again with its {}", name,
        version, kImageFileMaker));
  }
  ImageHeader header;
  header.shape = read_shape(file, name);
  const auto size_of = [&](const char* dataset, io::Hdf5Type type) {
    return static_cast<std::int64_t>(file.dataset(dataset, {type}).size());
  };
  const auto refuse = [&](const std::string& what) {
    throw_bad_input(
        fmt::format("{}: {}; make the file again with {}", name, what, kImageFileMaker));
  };
  header.images = size_of("/labels", io::Hdf5Type::kUint16);
  if (header.images < 1 || header.images > kMaxImages) {
    refuse(fmt::format("/labels has {} entries, and 1 to {} can be", header.images, kMaxImages));
  }
  const auto pixels = size_of("/pixels", io::Hdf5Type::kUint8);
  if (pixels != header.images * header.shape.values()) {
    refuse(fmt::format("/pixels has {} values, but {} labels and pictures of {} make {}", pixels,
                       header.images, header.shape.text(), header.images * header.shape.values()));
  }
  header.classes = size_of("/classes/offsets", io::Hdf5Type::kInt64) - 1;
  if (header.classes < 2 || header.classes > kMaxClasses) {
    refuse(fmt::format("/classes/offsets names {} classes, and 2 to {} can be", header.classes,
                       kMaxClasses));
  }
  const auto name_bytes = size_of("/classes/bytes", io::Hdf5Type::kUint8);
  if (name_bytes > kMaxClassBytes) {
    refuse(fmt::format("/classes/bytes has {} bytes, more than any real one", name_bytes));
  }
  for (const char* sums : {"/channel_sums", "/channel_squares"}) {
    if (const auto size = size_of(sums, io::Hdf5Type::kInt64); size != header.shape.channels) {
      refuse(fmt::format("{} has {} entries for {} channels", sums, size, header.shape.channels));
    }
  }
  return header;
}

}  // namespace lorascale::data
