// An image file on disk (layout: docs/images.md): pictures of one size, each with the index of its
// class. Checked when opened; blocks of pixels when first touched. Where the pictures came from
// (/names) is not read. Reading is thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/checked_elements.hpp"
#include "data/images/image_header.hpp"

namespace lorascale::data {

// Of values in 0..1, as 255 is 1.
struct ChannelStatistics {
  std::vector<double> mean;       // [channels]
  std::vector<double> deviation;  // [channels] standard deviation over all pixels of all pictures
  friend bool operator==(const ChannelStatistics&, const ChannelStatistics&) = default;
};

class ImageFile {
 public:
  explicit ImageFile(std::filesystem::path path);

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
  [[nodiscard]] std::int64_t images() const { return header_.images; }
  [[nodiscard]] const ImageShape& shape() const { return header_.shape; }
  [[nodiscard]] const std::vector<std::string>& classes() const { return classes_; }
  [[nodiscard]] const std::vector<std::uint16_t>& labels() const { return labels_; }  // [images]
  [[nodiscard]] const ChannelStatistics& statistics() const { return statistics_; }
  // By which training normalises them. A channel that hardly varies, of one value say, is not blown
  // up: its deviation counts as one of the 255 steps.
  [[nodiscard]] ChannelStatistics normalisation() const;
  // [channels, height, width] of one picture.
  void read_pixels(std::int64_t image, std::span<std::uint8_t> destination) const;

  // Tells files apart, on two ranks or before and after a stop: SHA-256 over sizes, classes, labels
  // and the checksums of the pixels; where there are none, over all of a small file's pixels and
  // samples of a large one's.
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }

 private:
  void read_classes();
  void read_labels(std::int64_t block_size);
  void read_statistics();
  [[nodiscard]] std::string hash() const;

  CheckedFile file_;
  ImageHeader header_;
  CheckedElements pixels_;
  std::vector<std::string> classes_;
  std::vector<std::uint16_t> labels_;
  ChannelStatistics statistics_;
  std::string fingerprint_;
};

}  // namespace lorascale::data
