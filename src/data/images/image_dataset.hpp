// The pictures of an image file as training sees them: normalised, and in training in a random view
// of each, which follows from (seed, epoch, sample id).
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.hpp"
#include "data/images/augmentation.hpp"
#include "data/images/image_file.hpp"

namespace lorascale::data {

struct ImageSettings {
  Augmentation augmentation;  // none for validation
  // A pixel x of 0..255 becomes (x / 255 - mean) / deviation. Absent: by the file's own statistics;
  // validation is given those of training.
  std::optional<ChannelStatistics> normalisation;
};

class ImageDataset : public Dataset {
 public:
  ImageDataset(std::filesystem::path path, ImageSettings settings);
  ImageDataset(std::unique_ptr<const ImageFile> file, ImageSettings settings);

  [[nodiscard]] std::int64_t rows() const override { return file_->images(); }

  [[nodiscard]] std::int64_t targets_per_epoch() const override { return rows(); }
  // An ImageLeaf. What a shift uncovers is 0: the mean.
  [[nodiscard]] std::unique_ptr<Leaf> leaf(const SampleKey& key,
                                           std::span<const std::int64_t> rows) const override;
  // The first: all are alike.
  [[nodiscard]] std::vector<std::int64_t> heaviest(std::int64_t count) const override;
  // The file's: how its pictures are varied is a setting of the configuration.
  [[nodiscard]] std::string fingerprint() const override { return file_->fingerprint(); }
  [[nodiscard]] std::string summary() const override;
  [[nodiscard]] std::string path() const override { return file_->path().string(); }

  [[nodiscard]] const ImageFile& file() const { return *file_; }
  // As it is used, whether given or the file's own.
  [[nodiscard]] const ChannelStatistics& normalisation() const { return normalisation_; }

 private:
  void fill_table();

  std::unique_ptr<const ImageFile> file_;
  Augmentation augmentation_;
  ChannelStatistics normalisation_;
  std::vector<std::array<float, 256>> table_;  // [channels] normalised values
};

// Throws Error(kBadInput) where pictures or classes of a set for validation are others than those
// trained on.
void require_agreement(const ImageFile& training, const ImageFile& validation);

}  // namespace lorascale::data
