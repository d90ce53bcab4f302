#include "data/pictures/picture_dataset.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "base/units.hpp"
#include "data/sampler.hpp"

namespace lorascale::data {
namespace {

// Pictures of a bucket that stand together in an epoch: as many as leaves usually have. Part of
// what a seed means.
constexpr std::int64_t kRun = 16;

// Uses of randomness (augmentation.cpp has others).
enum : std::uint32_t {
  kFlip = kFirstDataDraw + 0x10,
  kCrop,
  kCaptionDropout,
  kTagDropout,
  kTagOrder,
  kColors,
};

std::int64_t below(std::uint32_t bits, std::int64_t end) {
  return static_cast<std::int64_t>((std::uint64_t{bits} * static_cast<std::uint64_t>(end)) >> 32);
}

bool happens(std::uint32_t bits, double share) {
  return static_cast<double>(bits) * 0x1p-32 < share;
}

}  // namespace

PictureDataset::PictureDataset(std::filesystem::path path, const PictureSettings& settings)
    : file_(std::move(path)), settings_(settings), rows_{0} {
  for (std::int64_t i = 0; i < file_.images(); ++i) {
    rows_.push_back(rows_.back() + (settings_.use_repeats ? file_.repeats(i) : 1));
  }
  for (const auto& [height, width] : file_.buckets()) {
    if (height % settings_.factor != 0 || width % settings_.factor != 0) {
      throw_bad_input(fmt::format(
          "{} has pictures of {} x {}, and this model's autoencoder takes multiples of {}; make it "
          "again with {} --bucket-step {}",
          this->path(), height, width, settings_.factor, kCaptionedFileMaker,
          8 * settings_.factor));
    }
  }
  if (std::ssize(file_.tokens().pads) < settings_.rows.encoders) {
    throw_bad_input(fmt::format(
        "{} has captions for {} text encoder(s), and the model has {}; make it again with {} "
        "--model and this model",
        this->path(), file_.tokens().pads.size(), settings_.rows.encoders, kCaptionedFileMaker));
  }
  if (settings_.use_mask && file_.channels() != 4) {
    throw_bad_config(fmt::format("data.masked: {} holds no masks; make it again with {} --masks",
                                 this->path(), kCaptionedFileMaker));
  }
}

std::int64_t PictureDataset::picture(std::int64_t row) const {
  return std::ranges::upper_bound(rows_, row) - rows_.begin() - 1;
}

std::vector<std::int64_t> PictureDataset::shuffled(const SampleKey& key) const {
  std::vector<std::vector<std::int64_t>> of_bucket(file_.buckets().size());
  for (std::int64_t i = 0; i < file_.images(); ++i) {
    auto& rows = of_bucket[static_cast<std::size_t>(file_.bucket(i))];
    for (auto row = rows_[static_cast<std::size_t>(i)];
         row < rows_[static_cast<std::size_t>(i) + 1]; ++row) {
      rows.push_back(row);
    }
  }
  std::vector<std::int64_t> mixed;  // bucket after bucket, each in an order of its own
  std::vector<std::pair<std::int64_t, std::int64_t>> runs;  // begin and end in it
  for (std::size_t bucket = 0; bucket < of_bucket.size(); ++bucket) {
    const auto& rows = of_bucket[bucket];
    const auto count = std::ssize(rows);
    if (count == 0) {
      continue;
    }
    const EpochOrder order(count, key.seed ^ mix64(bucket + 1), key.epoch);
    const auto first = std::ssize(mixed);
    for (std::int64_t i = 0; i < count; ++i) {
      mixed.push_back(rows[static_cast<std::size_t>(order.row_at(i))]);
    }
    for (std::int64_t i = 0; i < count; i += kRun) {
      runs.emplace_back(first + i, first + std::min(i + kRun, count));
    }
  }
  const EpochOrder order(std::ssize(runs), key.seed, key.epoch);
  std::vector<std::int64_t> result;
  result.reserve(mixed.size());
  for (std::int64_t i = 0; i < std::ssize(runs); ++i) {
    const auto [begin, end] = runs[static_cast<std::size_t>(order.row_at(i))];
    result.insert(result.end(), mixed.begin() + begin, mixed.begin() + end);
  }
  return result;
}

PictureDataset::Crop PictureDataset::middle_of(std::int64_t picture) const {
  const auto& size = file_.size(picture);
  const auto& bucket = file_.buckets()[static_cast<std::size_t>(file_.bucket(picture))];
  return {(size.height - bucket.height) / 2, (size.width - bucket.width) / 2, false};
}

PictureDataset::Crop PictureDataset::crop_of(const SampleKey& key, std::int64_t row,
                                             std::int64_t picture) const {
  const auto& size = file_.size(picture);
  const auto& bucket = file_.buckets()[static_cast<std::size_t>(file_.bucket(picture))];
  Crop crop = middle_of(picture);
  if (settings_.random_crop) {
    const auto bits = key.stream(row, kCrop).block(0);
    crop.top = below(bits[0], size.height - bucket.height + 1);
    crop.left = below(bits[1], size.width - bucket.width + 1);
  }
  crop.flipped = settings_.flip && key.stream(row, kFlip).block(0)[0] >> 31 != 0;
  if (settings_.color_jitter > 0) {
    crop.colors = draw_color_factors(key.stream(row, kColors).block(0), settings_.color_jitter);
  }
  return crop;
}

void PictureDataset::add_picture(PictureGroup& group, std::int64_t picture,
                                 const Crop& crop) const {
  const auto& size = file_.size(picture);
  std::vector<std::uint8_t> bytes(
      static_cast<std::size_t>(file_.channels() * size.height * size.width));
  file_.read_pixels(picture, bytes);
  const auto copy = [&](std::int64_t channel, std::vector<float>& to, auto&& value) {
    for (std::int64_t y = 0; y < group.height; ++y) {
      const auto* row =
          bytes.data() + (channel * size.height + crop.top + y) * size.width + crop.left;
      for (std::int64_t x = 0; x < group.width; ++x) {
        to.push_back(value(row[crop.flipped ? group.width - 1 - x : x]));
      }
    }
  };
  for (std::int64_t channel = 0; channel < 3; ++channel) {
    copy(channel, group.pixels,
         [](std::uint8_t byte) { return static_cast<float>(byte) / 127.5F - 1.0F; });
  }
  if (crop.colors) {
    const auto values = static_cast<std::size_t>(3 * group.height * group.width);
    change_colors(std::span(group.pixels).last(values), *crop.colors);
  }
  if (settings_.use_mask) {
    copy(3, group.mask, [](std::uint8_t byte) { return static_cast<float>(byte) / 255.0F; });
  }
}

std::vector<std::int32_t> PictureDataset::caption_of(const SampleKey& key, std::int64_t row,
                                                     std::int64_t picture) const {
  const auto& caption = settings_.caption;
  if (caption.dropout > 0 &&
      happens(key.stream(row, kCaptionDropout).block(0)[0], caption.dropout)) {
    return {};
  }
  std::vector<std::int64_t> tags;
  const auto dropped = key.stream(row, kTagDropout);
  for (std::int64_t i = 0; i < file_.tags(picture); ++i) {
    if (i < caption.keep || caption.tag_dropout <= 0 ||
        !happens(dropped.block(static_cast<std::uint32_t>(i))[0], caption.tag_dropout)) {
      tags.push_back(i);
    }
  }
  if (caption.shuffle) {
    const auto order = key.stream(row, kTagOrder);
    for (auto i = std::ssize(tags) - 1; i > caption.keep; --i) {
      const auto bits = order.block(static_cast<std::uint32_t>(i))[0];
      const auto other = caption.keep + below(bits, i - caption.keep + 1);
      std::swap(tags[static_cast<std::size_t>(i)], tags[static_cast<std::size_t>(other)]);
    }
  }
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < tags.size(); ++i) {
    const auto tag = file_.tag(picture, tags[i], /*with_comma=*/i + 1 < tags.size());
    tokens.insert(tokens.end(), tag.begin(), tag.end());
  }
  return tokens;
}

std::int64_t PictureDataset::cut_captions() const {
  const auto room = settings_.rows.text_rows * (settings_.rows.positions - 2);
  std::int64_t cut = 0;
  for (std::int64_t i = 0; i < file_.images(); ++i) {
    cut += std::ssize(with_new_word(whole_caption(i), settings_.rows.new_word)) > room ? 1 : 0;
  }
  return cut;
}

std::int64_t PictureDataset::captions_with_new_word() const {
  std::int64_t captions = 0;
  for (std::int64_t i = 0; i < file_.images(); ++i) {
    std::int64_t found = 0;
    with_new_word(whole_caption(i), settings_.rows.new_word, &found);
    captions += found > 0 ? 1 : 0;
  }
  return captions;
}

std::unique_ptr<PictureLeaf> PictureDataset::empty_leaf() const {
  auto leaf = std::make_unique<PictureLeaf>();
  leaf->encoders = settings_.rows.encoders;
  leaf->text_rows = settings_.rows.text_rows;
  leaf->positions = settings_.rows.positions;
  return leaf;
}

std::string PictureDataset::view_name(std::int64_t picture, const Crop& crop) const {
  const auto& bucket = file_.buckets()[static_cast<std::size_t>(file_.bucket(picture))];
  return fmt::format("{}:{}x{}:{},{}:{}", file_.digest(picture), bucket.height, bucket.width,
                     crop.top, crop.left, crop.flipped ? 1 : 0);
}

void PictureDataset::add_view(PictureLeaf& leaf, std::int64_t picture, const Crop& crop) const {
  const auto& bucket = file_.buckets()[static_cast<std::size_t>(file_.bucket(picture))];
  const auto is_of_size = [&](const PictureGroup& group) {
    return group.height == bucket.height && group.width == bucket.width;
  };
  auto group = std::ranges::find_if(leaf.groups, is_of_size);
  if (group == leaf.groups.end()) {
    leaf.groups.push_back({bucket.height, bucket.width, {}, {}, {}});
    group = leaf.groups.end() - 1;
  }
  group->samples.push_back(std::ssize(leaf.views));
  add_picture(*group, picture, crop);
  leaf.views.push_back(crop.colors ? std::string() : view_name(picture, crop));
}

std::unique_ptr<Leaf> PictureDataset::leaf(const SampleKey& key,
                                           std::span<const std::int64_t> rows) const {
  auto leaf = empty_leaf();
  leaf->key = key;
  leaf->sample_ids.assign(rows.begin(), rows.end());
  leaf->units = std::ssize(rows);
  for (const auto row : rows) {
    const auto picture = this->picture(row);
    const auto crop = crop_of(key, row, picture);
    add_view(*leaf, picture, crop);
    add_caption_rows(caption_of(key, row, picture), file_.tokens(), settings_.rows, leaf->ids);
    leaf->weights.push_back(
        file_.regularisation(picture) ? static_cast<float>(settings_.prior_weight) : 1.0F);
    const auto& bucket = file_.buckets()[static_cast<std::size_t>(file_.bucket(picture))];
    const auto& size = file_.size(picture);
    const auto& original = file_.original(picture);
    // Where the crop lies in the picture as it is seen.
    const auto left = crop.flipped ? size.width - bucket.width - crop.left : crop.left;
    const auto narrow = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
    leaf->sizes.push_back({narrow(original.height), narrow(original.width), narrow(crop.top),
                           narrow(left), narrow(bucket.height), narrow(bucket.width)});
  }
  return leaf;
}

std::vector<PictureDataset::Crop> PictureDataset::crops_to_see(std::int64_t picture) const {
  std::vector<Crop> crops = {middle_of(picture)};
  if (settings_.flip) {
    crops.push_back(crops.front());
    crops.back().flipped = true;
  }
  return crops;
}

std::vector<std::string> PictureDataset::view_names(std::int64_t picture) const {
  std::vector<std::string> names;
  for (const auto& crop : crops_to_see(picture)) {
    names.push_back(view_name(picture, crop));
  }
  return names;
}

std::unique_ptr<PictureLeaf> PictureDataset::views(std::int64_t picture) const {
  auto leaf = empty_leaf();
  for (const auto& crop : crops_to_see(picture)) {
    add_view(*leaf, picture, crop);
  }
  return leaf;
}

std::vector<std::int32_t> PictureDataset::whole_caption(std::int64_t picture) const {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < file_.tags(picture); ++i) {
    const auto tag = file_.tag(picture, i, /*with_comma=*/i + 1 < file_.tags(picture));
    tokens.insert(tokens.end(), tag.begin(), tag.end());
  }
  return tokens;
}

std::vector<std::int32_t> PictureDataset::caption_ids(std::int64_t picture) const {
  std::vector<std::int32_t> ids;
  add_caption_rows(whole_caption(picture), file_.tokens(), settings_.rows, ids);
  return ids;
}

std::vector<std::int64_t> PictureDataset::heaviest(std::int64_t count) const {
  std::vector<std::int64_t> all(static_cast<std::size_t>(rows()));
  std::iota(all.begin(), all.end(), 0);
  const auto area = [&](std::int64_t row) {
    const auto& bucket = file_.buckets()[static_cast<std::size_t>(file_.bucket(picture(row)))];
    return bucket.height * bucket.width;
  };
  std::ranges::stable_sort(all, std::ranges::greater(), area);
  all.resize(static_cast<std::size_t>(std::min(count, rows())));
  return all;
}

std::string PictureDataset::summary() const {
  return fmt::format("{}: {} in {}, {} an epoch", path(), counted(file_.images(), "picture"),
                     counted(std::ssize(file_.buckets()), "bucket"), counted(rows(), "sample"));
}

void require_one_tokenizer(const CaptionedFile& training, const CaptionedFile& validation) {
  if (training.tokens().tokenizer != validation.tokens().tokenizer) {
    throw_bad_input(
        fmt::format("{} was made with another tokenizer than {}; prepare both with the model's own",
                    validation.path().string(), training.path().string()));
  }
}

}  // namespace lorascale::data
