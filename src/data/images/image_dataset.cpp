#include "data/images/image_dataset.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "base/units.hpp"
#include "data/images/image_leaf.hpp"
#include "io/untrusted_text.hpp"

namespace lorascale::data {

ImageDataset::ImageDataset(std::filesystem::path path, ImageSettings settings)
    : ImageDataset(std::make_unique<ImageFile>(std::move(path)), std::move(settings)) {}

ImageDataset::ImageDataset(std::unique_ptr<const ImageFile> file, ImageSettings settings)
    : file_(std::move(file)),
      augmentation_(settings.augmentation),
      normalisation_(settings.normalisation ? *std::move(settings.normalisation)
                                            : file_->normalisation()) {
  const auto& shape = file_->shape();
  const auto least_side = std::min(shape.height, shape.width);
  if (augmentation_.shift < 0 || augmentation_.shift >= least_side) {
    throw_bad_config(
        fmt::format("pictures of {}, {}, cannot be shifted by up to {} pixels; choose 0 to {}",
                    shape.text(), this->path(), augmentation_.shift, least_side - 1));
  }
  fill_table();
}

void ImageDataset::fill_table() {
  const auto channels = static_cast<std::size_t>(file_->shape().channels);
  if (normalisation_.mean.size() != channels || normalisation_.deviation.size() != channels) {
    throw_bad_config(
        fmt::format("{} has {} channels, but normalisation is given by {} means and "
                    "{} standard deviations; give one of each for a channel",
                    path(), channels, normalisation_.mean.size(), normalisation_.deviation.size()));
  }
  table_.resize(channels);
  for (std::size_t channel = 0; channel < channels; ++channel) {
    const auto mean = normalisation_.mean[channel];
    const auto deviation = normalisation_.deviation[channel];
    for (std::size_t value = 0; value < table_[channel].size(); ++value) {
      table_[channel][value] =
          static_cast<float>((static_cast<double>(value) / 255 - mean) / deviation);
      if (!(deviation > 0) || !std::isfinite(table_[channel][value])) {
        throw_bad_config(fmt::format(
            "pixels cannot be normalised by mean {} and standard deviation {}; give finite ones, "
            "as of values in 0..1, the deviation above 0",
            mean, deviation));
      }
    }
  }
}

std::unique_ptr<Leaf> ImageDataset::leaf(const SampleKey& key,
                                         std::span<const std::int64_t> rows) const {
  const auto& shape = file_->shape();
  const auto values = static_cast<std::size_t>(shape.values());
  auto leaf = std::make_unique<ImageLeaf>();
  leaf->key = key;
  leaf->sample_ids.assign(rows.begin(), rows.end());
  leaf->units = static_cast<std::int64_t>(rows.size());
  leaf->channels = shape.channels;
  leaf->height = shape.height;
  leaf->width = shape.width;
  leaf->pixels.resize(rows.size() * values);
  std::vector<std::uint8_t> pixels(values);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    file_->read_pixels(rows[i], pixels);
    render_view(pixels, shape, draw_view(augmentation_, key, rows[i]), table_,
                std::span(leaf->pixels).subspan(i * values, values));
    leaf->labels.push_back(file_->labels()[static_cast<std::size_t>(rows[i])]);
  }
  return leaf;
}

std::vector<std::int64_t> ImageDataset::heaviest(std::int64_t count) const {
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(std::min(count, rows())));
  std::iota(chosen.begin(), chosen.end(), 0);
  return chosen;
}

std::string ImageDataset::summary() const {
  return fmt::format("{}: {} of {}, {} classes", path(), counted(rows(), "image"),
                     file_->shape().text(), file_->classes().size());
}

void require_agreement(const ImageFile& training, const ImageFile& validation) {
  const auto refuse = [&](const std::string& what) {
    throw_bad_input(fmt::format("{} {}; make it with {} --classes-from {}",
                                validation.path().string(), what, kImageFileMaker,
                                training.path().string()));
  };
  const auto trained = training.path().string();
  if (validation.shape() != training.shape()) {
    refuse(fmt::format("holds pictures of {}, but {}, which is trained on, of {}",
                       validation.shape().text(), trained, training.shape().text()));
  }
  const auto& known = training.classes();
  const auto& classes = validation.classes();
  if (classes.size() != known.size()) {
    refuse(fmt::format("has {} classes, but {}, which is trained on, {}", classes.size(), trained,
                       known.size()));
  }
  const auto [other, own] = std::ranges::mismatch(classes, known);
  if (other != classes.end()) {
    refuse(fmt::format("says that class {} is {}, but in {}, which is trained on, it is {}",
                       other - classes.begin(), io::in_quotes(*other), trained,
                       io::in_quotes(*own)));
  }
}

}  // namespace lorascale::data
