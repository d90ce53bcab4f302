// A file of captioned pictures on disk (layout: docs/captioned-images.md): pictures of several
// sizes, each in a bucket, with its caption in tokens. Checked when opened; blocks of pixels when
// first touched. Reading is thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/byte_table.hpp"
#include "data/checked_elements.hpp"
#include "data/pictures/caption_rows.hpp"

namespace lorascale::data {

inline constexpr const char* kCaptionedFormat = "lorascale-captioned-images";
inline constexpr const char* kCaptionedFileMaker = "scripts/prepare_images.py";

struct PictureSize {
  std::int64_t height = 0, width = 0;
  friend bool operator==(const PictureSize&, const PictureSize&) = default;
};

class CaptionedFile {
 public:
  explicit CaptionedFile(std::filesystem::path path);

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
  [[nodiscard]] std::int64_t images() const { return std::ssize(sizes_); }
  [[nodiscard]] std::int64_t channels() const { return channels_; }  // 3, or 4: a mask, too
  [[nodiscard]] const PictureSize& size(std::int64_t image) const { return at(sizes_, image); }
  // Before it was scaled.
  [[nodiscard]] const PictureSize& original(std::int64_t image) const {
    return at(originals_, image);
  }
  [[nodiscard]] const std::vector<PictureSize>& buckets() const { return buckets_; }
  [[nodiscard]] std::int64_t bucket(std::int64_t image) const { return at(bucket_, image); }
  [[nodiscard]] std::int64_t repeats(std::int64_t image) const { return at(repeats_, image); }
  // Of prior preservation, not of what is to be learnt.
  [[nodiscard]] bool regularisation(std::int64_t image) const {
    return at(regularisation_, image) != 0;
  }
  // Tells pictures apart by their pixels.
  [[nodiscard]] std::string digest(std::int64_t image) const;
  [[nodiscard]] std::int64_t tags(std::int64_t image) const;
  // Its tokens, with those of the comma behind it where another tag follows.
  [[nodiscard]] std::span<const std::int32_t> tag(std::int64_t image, std::int64_t number,
                                                  bool with_comma) const;
  [[nodiscard]] const CaptionTokens& tokens() const { return tokens_; }
  [[nodiscard]] std::string_view caption(std::int64_t image) const { return captions_[image]; }
  // [channels, height, width] of one picture.
  void read_pixels(std::int64_t image, std::span<std::uint8_t> destination) const;
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }

 private:
  template <class T>
  static const T& at(const std::vector<T>& values, std::int64_t image) {
    return values[static_cast<std::size_t>(image)];
  }
  [[noreturn]] void refuse(const std::string& what) const;
  std::vector<std::int64_t> read_numbers(const std::string& name, std::int64_t least,
                                         std::int64_t most) const;
  std::vector<std::int32_t> read_tokens(const std::string& name) const;
  std::vector<std::int64_t> read_offsets(const std::string& name, std::int64_t end) const;
  std::vector<PictureSize> read_sizes(const std::string& prefix) const;
  void read_header();
  void read_pictures();
  void read_captions();
  [[nodiscard]] std::string hash() const;

  CheckedFile file_;
  std::int64_t channels_ = 3;
  CaptionTokens tokens_;
  std::vector<PictureSize> sizes_, originals_, buckets_;
  std::vector<std::int64_t> bucket_, repeats_, first_pixel_;
  std::vector<std::uint8_t> regularisation_, digests_;
  std::vector<std::int32_t> ids_;
  std::vector<std::int64_t> tag_offsets_, caption_tags_;
  ByteTable captions_;
  std::unique_ptr<CheckedElements> pixels_;
  std::string fingerprint_;
};

}  // namespace lorascale::data
