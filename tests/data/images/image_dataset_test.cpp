#include "data/images/image_dataset.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "data/images/image_leaf.hpp"
#include "support.hpp"

namespace lorascale::data {
namespace {

using testing::HasSubstr;

ImageLeaf leaf_of(const ImageDataset& set, const SampleKey& key, std::vector<std::int64_t> rows) {
  auto leaf = set.leaf(key, rows);
  return std::move(dynamic_cast<ImageLeaf&>(*leaf));
}

// Pixels as they are in the file: x / 255 divided by 1 / 255, up to the last bit.
ImageSettings plain(Augmentation augmentation, std::size_t channels = 1) {
  return {augmentation, ChannelStatistics{std::vector<double>(channels, 0.0),
                                          std::vector<double>(channels, 1.0 / 255)}};
}

// Two pictures of 1 x 5 x 6; their pixels are 1 to 30 and 101 to 130.
constexpr std::int64_t kHeight = 5, kWidth = 6;
constexpr const char* kTwoPictures =
    "fill(f, np.stack([np.arange(1, 31), np.arange(101, 131)]).astype(np.uint8)"
    ".reshape(2, 1, 5, 6), [1, 0], ['a', 'b'])";

// One view of a picture, made the long way: padded with zeros, cropped, then mirrored; `right` says
// how far the crop lies to the right of the middle.
std::vector<float> view_of(int first_pixel, bool flipped, std::int64_t down, std::int64_t right) {
  constexpr std::int64_t kMargin = 4;
  constexpr auto kPaddedWidth = kWidth + 2 * kMargin;
  std::vector<float> padded((kHeight + 2 * kMargin) * kPaddedWidth, 0.0F);
  for (std::int64_t i = 0; i < kHeight * kWidth; ++i) {
    padded[static_cast<std::size_t>((i / kWidth + kMargin) * kPaddedWidth + i % kWidth + kMargin)] =
        static_cast<float>(first_pixel + i);
  }
  std::vector<float> view;
  for (std::int64_t y = 0; y < kHeight; ++y) {
    const auto begin = padded.begin() + (y + kMargin + down) * kPaddedWidth + kMargin + right;
    view.insert(view.end(), begin, begin + kWidth);
    if (flipped) {
      std::reverse(view.end() - kWidth, view.end());
    }
  }
  return view;
}

// Every view that there can be, by its rounded pixels.
std::map<std::vector<float>, std::array<std::int64_t, 3>> all_views(int first_pixel, bool flip,
                                                                    std::int64_t shift) {
  std::map<std::vector<float>, std::array<std::int64_t, 3>> views;
  for (std::int64_t flipped = 0; flipped <= (flip ? 1 : 0); ++flipped) {
    for (auto down = -shift; down <= shift; ++down) {
      for (auto right = -shift; right <= shift; ++right) {
        views[view_of(first_pixel, flipped == 1, down, right)] = {flipped, down, right};
      }
    }
  }
  return views;
}

std::vector<float> rounded(std::vector<float> pixels) {
  std::ranges::transform(pixels, pixels.begin(), [](float x) { return std::round(x); });
  return pixels;
}

class ImageDatasetTest : public ImageFileFixture {};

TEST_F(ImageDatasetTest, LeavesHoldNormalisedPixels) {
  const ChannelStatistics given{{0.25, 0.5}, {0.125, 0.3}};
  const ImageDataset set(make("pass"), {{}, given});
  const auto leaf = leaf_of(set, {9, 4}, {4, 0, 2});
  EXPECT_EQ(leaf.key.seed, 9U);
  EXPECT_EQ(leaf.key.epoch, 4);
  EXPECT_EQ(leaf.sample_ids, (std::vector<std::int64_t>{4, 0, 2}));
  EXPECT_EQ(leaf.units, 3);
  EXPECT_EQ((std::vector{leaf.channels, leaf.height, leaf.width}),
            (std::vector<std::int64_t>{2, 3, 4}));
  EXPECT_EQ(leaf.labels, (std::vector<std::int32_t>{1, 0, 2}));
  ASSERT_EQ(leaf.pixels.size(), 72U);
  for (std::size_t i = 0; i < 72; ++i) {
    const auto channel = i / 12 % 2;
    const auto x = sound_pixel(leaf.sample_ids[i / 24] * 24 + static_cast<std::int64_t>(i % 24));
    EXPECT_EQ(leaf.pixels[i],
              static_cast<float>((x / 255.0 - given.mean[channel]) / given.deviation[channel]));
  }
}

TEST_F(ImageDatasetTest, WithoutAGivenNormalisationTheFilesOwnIsUsed) {
  const auto paths = make(std::vector<std::string>{
      "x = np.random.default_rng(1).integers(0, 256, (40, 2, 6, 5)).astype(np.uint8); x[:, 1] = 77;"
      " fill(f, x, np.arange(40) % 2, ['a', 'b'], block=512)",
      "pass"});
  const ImageDataset set(paths[0], {});
  std::vector<std::int64_t> rows(40);
  std::iota(rows.begin(), rows.end(), 0);
  const auto leaf = leaf_of(set, {}, rows);
  double sum = 0, square = 0;
  for (std::size_t i = 0; i < leaf.pixels.size(); ++i) {
    if (i / 30 % 2 == 1) {
      EXPECT_NEAR(leaf.pixels[i], 0, 1e-6);  // of one value: not divided by 0
    } else {
      sum += leaf.pixels[i];
      square += std::pow(leaf.pixels[i], 2);
    }
  }
  EXPECT_NEAR(sum / 1200, 0, 1e-6);
  EXPECT_NEAR(square / 1200, 1, 1e-6);
  // What validation is given.
  const ImageDataset other(paths[1], {{}, set.normalisation()});
  EXPECT_EQ(other.normalisation(), set.normalisation());
  EXPECT_EQ(leaf_of(other, {}, {0}).pixels[0],
            static_cast<float>((11 / 255.0 - set.normalisation().mean[0]) /
                               set.normalisation().deviation[0]));
}

TEST_F(ImageDatasetTest, SaysWhatItIs) {
  const auto paths = make(std::vector<std::string>{
      "pass",
      "fill(f, np.zeros((13916, 1, 1, 2), np.uint8), np.arange(13916) % 10, list('ABCDEFGHIJ'), "
      "block=4096)",
      "fill(f, np.zeros((1, 1, 1, 2), np.uint8), [1], ['a', 'b'])"});
  const ImageDataset set(paths[0], {{true, 1}, {}});
  EXPECT_EQ(set.rows(), 6);
  EXPECT_EQ(set.targets_per_epoch(), 6);
  EXPECT_EQ(set.heaviest(2), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(set.heaviest(20).size(), 6U);
  EXPECT_EQ(set.path(), paths[0].string());
  EXPECT_EQ(set.fingerprint(), ImageDataset(paths[0], {}).fingerprint());
  EXPECT_NE(set.fingerprint(), ImageDataset(paths[1], {}).fingerprint());
  EXPECT_EQ(set.summary(), paths[0].string() + ": 6 images of 2 x 3 x 4, 3 classes");
  EXPECT_EQ(ImageDataset(paths[1], {}).summary(),
            paths[1].string() + ": 13916 images of 1 x 1 x 2, 10 classes");
  EXPECT_EQ(ImageDataset(paths[2], {}).summary(),
            paths[2].string() + ": 1 image of 1 x 1 x 2, 2 classes");
}

// Every view that occurs is one of those that can be, each as often as the others: chi-square of 50
// cells, 49 degrees of freedom; 94.8 is exceeded with probability 1e-4.
TEST_F(ImageDatasetTest, ViewsAreUniformOverFlipsAndShifts) {
  const ImageDataset set(make(kTwoPictures), plain({true, 2}));
  const auto views = all_views(101, true, 2);
  ASSERT_EQ(views.size(), 50U);
  constexpr int kEpochs = 5000;
  std::map<std::array<std::int64_t, 3>, int> counts;
  int flips = 0;
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const auto leaf = leaf_of(set, {3, epoch}, {1});
    ASSERT_EQ(leaf.labels, std::vector<std::int32_t>{0});
    const auto found = views.find(rounded(leaf.pixels));
    ASSERT_NE(found, views.end()) << "no view of the picture";
    ++counts[found->second];
    flips += static_cast<int>(found->second[0]);
  }
  EXPECT_NEAR(flips, kEpochs / 2, 4 * std::sqrt(kEpochs) / 2);
  double chi_square = 0;
  for (const auto& [pixels, view] : views) {
    chi_square += std::pow(counts[view] - kEpochs / 50.0, 2) / (kEpochs / 50.0);
  }
  EXPECT_LT(chi_square, 94.8);
}

TEST_F(ImageDatasetTest, FlipAndShiftAreSettingsByThemselves) {
  const auto path = make(kTwoPictures);
  const ImageDataset flip(path, plain({true, 0})), shift(path, plain({false, 3})),
      both(path, plain({true, 3}));
  const auto flips = all_views(1, true, 0), shifts = all_views(1, false, 3),
             all = all_views(1, true, 3);
  for (int epoch = 0; epoch < 100; ++epoch) {
    const SampleKey key{1, epoch};
    const auto flipped = flips.find(rounded(leaf_of(flip, key, {0}).pixels));
    const auto shifted = shifts.find(rounded(leaf_of(shift, key, {0}).pixels));
    const auto view = all.find(rounded(leaf_of(both, key, {0}).pixels));
    ASSERT_TRUE(flipped != flips.end() && shifted != shifts.end() && view != all.end());
    // Each draws by itself. A crop of the mirrored picture is mirrored by the reference after it.
    const bool mirrored = view->second[0] == 1;
    EXPECT_EQ(view->second[0], flipped->second[0]);
    EXPECT_EQ(view->second[1], shifted->second[1]);
    EXPECT_EQ(view->second[2], mirrored ? -shifted->second[2] : shifted->second[2]);
  }
}

TEST_F(ImageDatasetTest, AViewFollowsFromSeedEpochAndSampleAlone) {
  const ImageDataset set(make("pass"), plain({true, 2}, 2));
  const auto all = leaf_of(set, {5, 8}, {3, 1, 4, 0, 5, 2});
  const ImageDataset again(set.file().path(), plain({true, 2}, 2));
  for (const auto& rows : {std::vector<std::int64_t>{4}, {0, 4}, {4, 4, 1}, {5, 3, 4, 2}}) {
    const auto leaf = leaf_of(again, {5, 8}, rows);
    const auto at = std::ranges::find(rows, 4) - rows.begin();
    EXPECT_TRUE(std::equal(leaf.pixels.begin() + at * 24, leaf.pixels.begin() + at * 24 + 24,
                           all.pixels.begin() + 2 * 24));
    EXPECT_EQ(leaf.labels[static_cast<std::size_t>(at)], 1);
  }
  // Other keys, and other pictures of one key, are seen otherwise: of 64 at most a few alike.
  const ImageDataset twins(
      make("x = np.tile(np.arange(1, 31, dtype=np.uint8), 64).reshape(64, 1, 5, 6); "
           "fill(f, x, np.arange(64) % 2, ['a', 'b'], block=4096)"),
      plain({true, 2}));
  int alike = 0;
  for (int i = 1; i < 64; ++i) {
    const auto first = leaf_of(twins, {0, 0}, {0}).pixels;
    alike += leaf_of(twins, {0, i}, {0}).pixels == first ? 1 : 0;
    alike += leaf_of(twins, {static_cast<std::uint64_t>(i), 0}, {0}).pixels == first ? 1 : 0;
    alike += leaf_of(twins, {0, 0}, {i}).pixels == first ? 1 : 0;
  }
  EXPECT_LT(alike, 14);  // 3.8 expected of 189 with 50 views; 14 or more by chance: below 1e-4
}

TEST_F(ImageDatasetTest, WithoutAugmentationEveryEpochSeesTheSame) {
  const ImageDataset set(make("pass"), plain({}, 2));
  const auto first = leaf_of(set, {0, 0}, {0, 1, 2}).pixels;
  for (int i = 1; i < 20; ++i) {
    EXPECT_EQ(leaf_of(set, {static_cast<std::uint64_t>(i), i}, {0, 1, 2}).pixels, first);
  }
}

TEST_F(ImageDatasetTest, RefusesSettingsThatCannotBe) {
  const auto path = make("pass");  // of 2 x 3 x 4
  const auto expect = [&](const ImageSettings& settings, const char* words) {
    EXPECT_THAT(refusal(ExitCode::kBadConfig, [&] { ImageDataset(path, settings); }),
                HasSubstr(words));
  };
  expect({{false, 3}, {}}, "cannot be shifted by up to 3 pixels; choose 0 to 2");
  expect({{false, -1}, {}}, "choose 0 to 2");
  expect({{}, ChannelStatistics{{0.5}, {0.5}}}, "has 2 channels, but normalisation is given by 1");
  expect({{}, ChannelStatistics{{0.5, 0.5}, {0.5}}}, "1 standard deviations");
  const auto infinity = std::numeric_limits<double>::infinity();
  for (const double deviation : {0.0, -1.0, std::nan(""), 1e-300}) {
    expect({{}, ChannelStatistics{{0.5, 0.5}, {0.5, deviation}}}, "cannot be normalised by mean");
  }
  for (const double mean : {infinity, std::nan("")}) {
    expect({{}, ChannelStatistics{{mean, 0.5}, {0.5, 0.5}}}, "cannot be normalised by mean");
  }
}

TEST_F(ImageDatasetTest, ValidationMustAgreeWithTraining) {
  const auto paths = make(std::vector<std::string>{
      "pass", "put(f, 'labels', np.array([2, 2, 2, 2, 2, 2], np.uint16)); seal(f)",
      "f.attrs['height']=4; f.attrs['width']=3",
      "fill(f, np.zeros((6, 2, 3, 4), np.uint8), [0] * 6, ['a', 'bb'])",
      "fill(f, np.zeros((6, 2, 3, 4), np.uint8), [0] * 6, ['a', 'b\\n', '\\xfc'])"});
  const ImageFile training(paths[0]);
  EXPECT_NO_THROW(require_agreement(training, training));
  EXPECT_NO_THROW(require_agreement(training, ImageFile(paths[1])));
  const auto expect = [&](std::size_t path, const std::string& words) {
    const auto message =
        refusal(ExitCode::kBadInput, [&] { require_agreement(training, ImageFile(paths[path])); });
    EXPECT_THAT(message, HasSubstr(words));
    EXPECT_THAT(message, HasSubstr("--classes-from " + paths[0].string()));
    EXPECT_THAT(message, testing::StartsWith(paths[path].string()));
  };
  expect(2, "holds pictures of 2 x 4 x 3, but " + paths[0].string() +
                ", which is trained on, of 2 x 3 x 4");
  expect(3, "has 2 classes, but " + paths[0].string() + ", which is trained on, 3");
  expect(4, "class 1 is \"b\\x0a\", but in " + paths[0].string() +
                ", which is trained on, it is \"bb\"");
}

}  // namespace
}  // namespace lorascale::data
