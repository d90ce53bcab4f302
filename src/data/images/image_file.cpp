#include "data/images/image_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "data/byte_table.hpp"

namespace lorascale::data {
namespace {

__extension__ using Wide = __int128;

constexpr std::int64_t kLargestImageBlock = std::int64_t{1} << 24;
constexpr std::int64_t kMaxBlocks = std::int64_t{1} << 24;

// So that neither a block nor the list of their checks takes much memory.
std::int64_t block_size(const CheckedFile& file, const ImageHeader& header) {
  const auto size = file.block_size(kLargestImageBlock);
  if (header.images * header.shape.values() / size >= kMaxBlocks) {
    throw_bad_input(fmt::format(
        "{}: attribute checks_block is {}, which makes more than {} blocks; make the file again "
        "with {}",
        file.path().string(), size, kMaxBlocks, kImageFileMaker));
  }
  return size;
}

}  // namespace

ImageFile::ImageFile(std::filesystem::path path)
    : file_(std::move(path), kImageFileMaker),
      header_(read_image_header(file_.hdf5(), file_.path())),
      pixels_(file_, "pixels", {io::Hdf5Type::kUint8}, block_size(file_, header_)) {
  read_classes();
  read_labels(block_size(file_, header_));
  read_statistics();
  fingerprint_ = hash();
}

void ImageFile::read_classes() {
  const auto table = ByteTable::read(file_.hdf5(), "/classes");
  file_.check_whole("classes", {std::as_bytes(std::span(table.bytes())),
                                std::as_bytes(std::span(table.offsets()))});
  for (std::int64_t i = 0; i < table.size(); ++i) {
    if (table[i].empty()) {
      throw_bad_input(
          fmt::format("{}: /classes gives class {} no name; make the file again with {}",
                      file_.path().string(), i, kImageFileMaker));
    }
    classes_.emplace_back(table[i]);
  }
}

void ImageFile::read_labels(std::int64_t block_size) {
  const CheckedElements labels(file_, "labels", {io::Hdf5Type::kUint16}, block_size);
  labels_.reserve(static_cast<std::size_t>(images()));
  for (std::int64_t block = 0; block * block_size < images(); ++block) {
    const auto values = labels.block<std::uint16_t>(block);
    labels_.insert(labels_.end(), values.begin(), values.end());
  }
  const auto wrong =
      std::ranges::find_if(labels_, [&](std::uint16_t label) { return label >= classes_.size(); });
  if (wrong != labels_.end()) {
    throw_bad_input(fmt::format(
        "{}: picture {} has label {}, but there are {} classes; make the file again with {}",
        file_.path().string(), wrong - labels_.begin(), *wrong, classes_.size(), kImageFileMaker));
  }
}

void ImageFile::read_statistics() {
  const auto sums = read_small<std::int64_t>(file_.hdf5(), "/channel_sums", io::Hdf5Type::kInt64);
  const auto squares =
      read_small<std::int64_t>(file_.hdf5(), "/channel_squares", io::Hdf5Type::kInt64);
  file_.check_whole("channels",
                    {std::as_bytes(std::span(sums)), std::as_bytes(std::span(squares))});
  const auto count = images() * shape().height * shape().width;
  for (std::size_t channel = 0; channel < sums.size(); ++channel) {
    const auto sum = sums[channel];
    const auto square = squares[channel];
    // All that holds of x in 0..255 and its square; nothing overflows, as HDF5 data sets are
    // bounded.
    const bool in_range = sum >= 0 && sum <= 255 * count && square >= sum && square <= 255 * sum;
    // count^2 times the variance, exactly.
    const Wide variance = Wide{count} * square - Wide{sum} * sum;
    if (!in_range || variance < 0) {
      throw_bad_input(fmt::format(
          "{}: /channel_sums and /channel_squares give channel {} the sums {} and {}, which {} "
          "values of 0 to 255 cannot have; make the file again with {}",
          file_.path().string(), channel, sum, square, count, kImageFileMaker));
    }
    const auto scale = 255 * static_cast<double>(count);
    statistics_.mean.push_back(static_cast<double>(sum) / scale);
    statistics_.deviation.push_back(std::sqrt(static_cast<double>(variance)) / scale);
  }
}

ChannelStatistics ImageFile::normalisation() const {
  auto normalisation = statistics_;
  for (auto& deviation : normalisation.deviation) {
    deviation = std::max(deviation, 1.0 / 255);
  }
  return normalisation;
}

std::string ImageFile::hash() const {
  Sha256 hash;
  hash.update(fmt::format("images:{}:{}:{}:", images(), shape().text(), classes_.size()));
  for (const auto& name : classes_) {
    hash.update(fmt::format("{}:{}", name.size(), name));
  }
  hash.update(std::as_bytes(std::span(labels_)));
  pixels_.hash_checks(hash);
  pixels_.hash_samples(hash);
  return hash.hex();
}

void ImageFile::read_pixels(std::int64_t image, std::span<std::uint8_t> destination) const {
  const auto values = shape().values();
  LS_ASSERT(image >= 0 && image < images());
  LS_ASSERT(static_cast<std::int64_t>(destination.size()) == values);
  const auto first = image * values;
  pixels_.at_first_touch(first, values, [this](std::int64_t block) {
    static_cast<void>(pixels_.block<std::uint8_t>(block));
  });
  pixels_.read(first, values, destination.data());
}

}  // namespace lorascale::data
