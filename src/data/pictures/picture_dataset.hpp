// Captioned pictures as training sees them: each as often in an epoch as its repeats say, cropped
// to its bucket, perhaps mirrored, its caption as rows of tokens, perhaps shuffled or left out.
// What is random follows from (seed, epoch, sample id).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.hpp"
#include "data/pictures/captioned_file.hpp"
#include "data/pictures/color_jitter.hpp"
#include "data/pictures/picture_leaf.hpp"

namespace lorascale::data {

struct CaptionSettings {
  bool shuffle = false;    // tags in any order, but for the first `keep`
  std::int64_t keep = 0;   // tags that are neither moved nor left out
  double dropout = 0;      // share of captions that are empty
  double tag_dropout = 0;  // share of tags that are left out
};

struct PictureSettings {
  CaptionSettings caption;
  bool flip = false;
  bool random_crop = false;  // where a picture is larger than its bucket; else the middle
  double color_jitter = 0;   // of brightness, contrast and saturation, at most
  bool use_repeats = true;   // else each picture once
  bool use_mask = false;
  double prior_weight = 1;  // of pictures for regularisation
  CaptionRows rows;
  std::int64_t factor = 8;  // sides of buckets are multiples of it
};

class PictureDataset : public Dataset {
 public:
  // Error(kBadInput) where the file does not suit the settings.
  PictureDataset(std::filesystem::path path, const PictureSettings& settings);

  [[nodiscard]] std::int64_t rows() const override { return rows_.back(); }
  [[nodiscard]] std::int64_t targets_per_epoch() const override { return rows(); }
  // Pictures of a bucket stand together in runs, so that leaves have few sizes; which run is where,
  // and what is in it, follows from the key.
  [[nodiscard]] std::vector<std::int64_t> shuffled(const SampleKey& key) const override;
  // A PictureLeaf.
  [[nodiscard]] std::unique_ptr<Leaf> leaf(const SampleKey& key,
                                           std::span<const std::int64_t> rows) const override;
  [[nodiscard]] std::vector<std::int64_t> heaviest(std::int64_t count) const override;
  [[nodiscard]] std::string fingerprint() const override { return file_.fingerprint(); }
  [[nodiscard]] std::string summary() const override;
  [[nodiscard]] std::string path() const override { return file_.path().string(); }

  [[nodiscard]] const CaptionedFile& file() const { return file_; }
  [[nodiscard]] const PictureSettings& settings() const { return settings_; }
  // Captions that are longer than their rows, and lose their ends.
  [[nodiscard]] std::int64_t cut_captions() const;
  // Captions with the word that the model learns (CaptionRows::new_word).
  [[nodiscard]] std::int64_t captions_with_new_word() const;
  // The views of a picture that training can see, where crops are not by chance: mirrored, too,
  // where settings flip. Their names, as in PictureLeaf::views, and they themselves.
  [[nodiscard]] std::vector<std::string> view_names(std::int64_t picture) const;
  [[nodiscard]] std::unique_ptr<PictureLeaf> views(std::int64_t picture) const;
  // Ids of its caption, whole and in order, as a leaf of one sample has them.
  [[nodiscard]] std::vector<std::int32_t> caption_ids(std::int64_t picture) const;
  // The picture behind a row.
  [[nodiscard]] std::int64_t picture(std::int64_t row) const;

 private:
  struct Crop {
    std::int64_t top = 0, left = 0;
    bool flipped = false;
    std::optional<ColorFactors> colors{};
  };
  [[nodiscard]] Crop crop_of(const SampleKey& key, std::int64_t row, std::int64_t picture) const;
  [[nodiscard]] Crop middle_of(std::int64_t picture) const;
  [[nodiscard]] std::vector<Crop> crops_to_see(std::int64_t picture) const;
  [[nodiscard]] std::string view_name(std::int64_t picture, const Crop& crop) const;
  [[nodiscard]] std::unique_ptr<PictureLeaf> empty_leaf() const;
  void add_view(PictureLeaf& leaf, std::int64_t picture, const Crop& crop) const;
  void add_picture(PictureGroup& group, std::int64_t picture, const Crop& crop) const;
  // The caption's tokens in the order and with the gaps of this epoch.
  [[nodiscard]] std::vector<std::int32_t> caption_of(const SampleKey& key, std::int64_t row,
                                                     std::int64_t picture) const;
  // The whole caption's tokens in order.
  [[nodiscard]] std::vector<std::int32_t> whole_caption(std::int64_t picture) const;

  CaptionedFile file_;
  PictureSettings settings_;
  std::vector<std::int64_t> rows_;  // [pictures + 1] first row of each
};

// Throws Error(kBadInput) where a set for validation was made with another tokenizer.
void require_one_tokenizer(const CaptionedFile& training, const CaptionedFile& validation);

}  // namespace lorascale::data
