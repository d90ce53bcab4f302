#include "data/pictures/captioned_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.hpp"

namespace lorascale::data {
namespace {

constexpr std::int64_t kLargestCaptionedBlock = std::int64_t{1} << 24;
constexpr std::int64_t kMaxSide = 1 << 14;
constexpr std::int64_t kMaxRepeats = 1 << 16;
constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 24;
constexpr std::int64_t kDigestBytes = 32;

}  // namespace

CaptionedFile::CaptionedFile(std::filesystem::path path)
    : file_(std::move(path), kCaptionedFileMaker) {
  read_header();
  read_pictures();
  read_captions();
  fingerprint_ = hash();
}

void CaptionedFile::refuse(const std::string& what) const {
  throw_bad_input(fmt::format("{}: {}; make the file again with {}", path().string(), what,
                              kCaptionedFileMaker));
}

void CaptionedFile::read_header() {
  const auto& hdf5 = file_.hdf5();
  if (hdf5.text_attribute("format").value_or("") != kCaptionedFormat) {
    throw_bad_input(
        fmt::format("{} is no file of captioned pictures (attribute format); make one with {} "
                    "--model MODEL",
                    path().string(), kCaptionedFileMaker));
  }
  const auto number = [&](const char* name, std::int64_t least, std::int64_t most) {
    const auto value = hdf5.integer_attribute(name).value_or(least - 1);
    if (value < least || value > most) {
      refuse(fmt::format("attribute {} is {}, and {} to {} can be", name, value, least, most));
    }
    return value;
  };
  number("version", 1, 1);
  channels_ = number("channels", 3, 4);
  tokens_.vocabulary = number("vocabulary", 1, kMaxVocabulary);
  const auto token = [&](const char* name) {
    return static_cast<std::int32_t>(number(name, 0, tokens_.vocabulary - 1));
  };
  tokens_.begin = token("begin_token");
  tokens_.end = token("end_token");
  tokens_.pads.push_back(token("pad_token"));
  if (hdf5.integer_attribute("pad_token_2")) {
    tokens_.pads.push_back(token("pad_token_2"));
  }
  tokens_.tokenizer = hdf5.text_attribute("tokenizer_sha256").value_or("");
}

std::vector<std::int64_t> CaptionedFile::read_numbers(const std::string& name, std::int64_t least,
                                                      std::int64_t most) const {
  const auto values = read_small<std::uint32_t>(file_.hdf5(), "/" + name, io::Hdf5Type::kUint32);
  file_.check_whole(name, {std::as_bytes(std::span(values))});
  for (const auto value : values) {
    if (value < least || value > most) {
      refuse(fmt::format("/{} holds {}, and {} to {} can be", name, value, least, most));
    }
  }
  return {values.begin(), values.end()};
}

std::vector<std::int32_t> CaptionedFile::read_tokens(const std::string& name) const {
  const auto values = read_numbers(name, 0, tokens_.vocabulary - 1);
  std::vector<std::int32_t> tokens(values.size());
  std::ranges::transform(values, tokens.begin(),
                         [](std::int64_t value) { return static_cast<std::int32_t>(value); });
  return tokens;
}

// Ascending from 0 to `end`.
std::vector<std::int64_t> CaptionedFile::read_offsets(const std::string& name,
                                                      std::int64_t end) const {
  auto values = read_small<std::int64_t>(file_.hdf5(), "/" + name, io::Hdf5Type::kInt64);
  file_.check_whole(name, {std::as_bytes(std::span(values))});
  if (values.empty() || values.front() != 0 || values.back() != end ||
      !std::ranges::is_sorted(values)) {
    refuse(fmt::format("/{} does not ascend from 0 to {}", name, end));
  }
  return values;
}

std::vector<PictureSize> CaptionedFile::read_sizes(const std::string& prefix) const {
  const auto heights = read_numbers(prefix + "heights", 1, kMaxSide);
  const auto widths = read_numbers(prefix + "widths", 1, kMaxSide);
  if (heights.size() != widths.size()) {
    refuse(fmt::format("/{0}heights and /{0}widths differ in length", prefix));
  }
  std::vector<PictureSize> sizes;
  for (std::size_t i = 0; i < heights.size(); ++i) {
    sizes.push_back({heights[i], widths[i]});
  }
  return sizes;
}

void CaptionedFile::read_pictures() {
  sizes_ = read_sizes("");
  originals_ = read_sizes("original_");
  buckets_ = read_sizes("bucket_");
  bucket_ = read_numbers("bucket", 0, std::ssize(buckets_) - 1);
  repeats_ = read_numbers("repeats", 1, kMaxRepeats);
  const auto bytes = [&](const char* name) {
    auto values =
        read_small<std::uint8_t>(file_.hdf5(), std::string("/") + name, io::Hdf5Type::kUint8);
    file_.check_whole(name, {std::as_bytes(std::span(values))});
    return values;
  };
  regularisation_ = bytes("regularisation");
  digests_ = bytes("digests");
  const auto count = sizes_.size();
  if (count == 0 || originals_.size() != count || bucket_.size() != count ||
      repeats_.size() != count || regularisation_.size() != count ||
      digests_.size() != count * kDigestBytes) {
    refuse("its data sets do not agree on the number of pictures");
  }
  first_pixel_.push_back(0);
  for (std::size_t i = 0; i < count; ++i) {
    const auto& size = sizes_[i];
    const auto& bucket = buckets_[static_cast<std::size_t>(bucket_[i])];
    if (size.height < bucket.height || size.width < bucket.width) {
      refuse(fmt::format("picture {} of {} x {} does not fill its bucket of {} x {}", i,
                         size.height, size.width, bucket.height, bucket.width));
    }
    first_pixel_.push_back(first_pixel_.back() + channels_ * size.height * size.width);
  }
  pixels_ = std::make_unique<CheckedElements>(file_, "pixels", std::vector{io::Hdf5Type::kUint8},
                                              file_.block_size(kLargestCaptionedBlock));
  if (pixels_->size() != first_pixel_.back()) {
    refuse(fmt::format("/pixels has {} values, the pictures' sizes make {}", pixels_->size(),
                       first_pixel_.back()));
  }
}

void CaptionedFile::read_captions() {
  ids_ = read_tokens("tokens");
  tag_offsets_ = read_offsets("tags", std::ssize(ids_));
  if (tag_offsets_.size() % 2 != 1) {
    refuse("/tags has not two entries for each tag");
  }
  caption_tags_ = read_offsets("caption_tags", (std::ssize(tag_offsets_) - 1) / 2);
  captions_ = ByteTable::read(file_.hdf5(), "/captions");
  file_.check_whole("captions", {std::as_bytes(std::span(captions_.bytes())),
                                 std::as_bytes(std::span(captions_.offsets()))});
  if (std::ssize(caption_tags_) != images() + 1 || captions_.size() != images()) {
    refuse("its captions are not as many as its pictures");
  }
}

std::string CaptionedFile::digest(std::int64_t image) const {
  std::string text;
  for (std::int64_t i = 0; i < kDigestBytes; ++i) {
    text += fmt::format("{:02x}", at(digests_, image * kDigestBytes + i));
  }
  return text;
}

std::int64_t CaptionedFile::tags(std::int64_t image) const {
  return at(caption_tags_, image + 1) - at(caption_tags_, image);
}

std::span<const std::int32_t> CaptionedFile::tag(std::int64_t image, std::int64_t number,
                                                 bool with_comma) const {
  const auto tag = 2 * (at(caption_tags_, image) + number) + (with_comma ? 0 : 1);
  const auto first = at(tag_offsets_, tag);
  return std::span(ids_).subspan(static_cast<std::size_t>(first),
                                 static_cast<std::size_t>(at(tag_offsets_, tag + 1) - first));
}

std::string CaptionedFile::hash() const {
  Sha256 hash;
  hash.update(fmt::format("captioned:{}:{}:{}:", images(), channels_, tokens_.tokenizer));
  hash.update(std::as_bytes(std::span(digests_)));
  for (const auto* numbers : {&bucket_, &repeats_, &tag_offsets_, &caption_tags_}) {
    hash.update(std::as_bytes(std::span(*numbers)));
  }
  hash.update(std::as_bytes(std::span(regularisation_)));
  hash.update(std::as_bytes(std::span(ids_)));
  for (const auto& bucket : buckets_) {
    hash.update(fmt::format("{}x{},", bucket.height, bucket.width));
  }
  return hash.hex();
}

void CaptionedFile::read_pixels(std::int64_t image, std::span<std::uint8_t> destination) const {
  const auto first = at(first_pixel_, image), count = at(first_pixel_, image + 1) - first;
  LS_ASSERT(std::ssize(destination) == count);
  pixels_->at_first_touch(first, count, [this](std::int64_t block) {
    static_cast<void>(pixels_->block<std::uint8_t>(block));
  });
  pixels_->read(first, count, destination.data());
}

}  // namespace lorascale::data
