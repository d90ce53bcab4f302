// Changes of colours, by torchvision's formulas written out again: its `_blend` of two pictures and
// `rgb_to_grayscale`, one operation after another on whole pictures.
#include "data/pictures/color_jitter.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "data/leaf_stream.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "data/pictures/support.hpp"

namespace lorascale::data {
namespace {

using Picture = std::vector<double>;  // [3, pixels] in [0, 1]

Picture blend(const Picture& one, const Picture& other, double ratio) {
  Picture result;
  for (std::size_t i = 0; i < one.size(); ++i) {
    result.push_back(std::clamp(ratio * one[i] + (1 - ratio) * other[i], 0.0, 1.0));
  }
  return result;
}

Picture grey(const Picture& picture) {
  const auto n = picture.size() / 3;
  Picture result(picture.size());
  for (std::size_t i = 0; i < picture.size(); ++i) {
    const auto at = i % n;
    result[i] = 0.2989 * picture[at] + 0.587 * picture[n + at] + 0.114 * picture[2 * n + at];
  }
  return result;
}

Picture expected_of(Picture picture, const ColorFactors& factors) {
  picture = blend(picture, Picture(picture.size(), 0.0), factors.brightness);
  const Picture shades = grey(picture);
  double mean = 0;
  for (const double shade : shades) {
    mean += shade / static_cast<double>(shades.size());
  }
  picture = blend(picture, Picture(picture.size(), mean), factors.contrast);
  return blend(picture, grey(picture), factors.saturation);
}

TEST(ColorJitter, IsTorchvisions) {
  Picture picture;
  for (std::size_t i = 0; i < 3 * 35; ++i) {
    picture.push_back(static_cast<double>((i * i * 31 + 7 * i) % 256) / 255);
  }
  for (const ColorFactors& factors :
       {ColorFactors{}, ColorFactors{0.6, 1, 1}, ColorFactors{1, 1.4, 1}, ColorFactors{1, 1, 0},
        ColorFactors{1.3, 0.7, 1.9}, ColorFactors{1.9, 1.9, 1.9}}) {
    std::vector<float> ours;
    for (const double value : picture) {
      ours.push_back(static_cast<float>(2 * value - 1));
    }
    change_colors(ours, factors);
    const Picture expected = expected_of(picture, factors);
    for (std::size_t i = 0; i < ours.size(); ++i) {
      ASSERT_NEAR(ours[i], 2 * expected[i] - 1, 1e-6) << i;
    }
  }
}

TEST(ColorJitter, FactorsLieWithinTheirLimitsAndFillThem) {
  double least = 2, most = 0;
  std::set<double> all;
  for (std::uint32_t i = 0; i < 400; ++i) {
    const auto bits = SampleKey{3, 1}.stream(i, kFirstDataDraw).block(0);
    const auto [brightness, contrast, saturation] = draw_color_factors(bits, 0.2);
    for (const double factor : {brightness, contrast, saturation}) {
      least = std::min(least, factor);
      most = std::max(most, factor);
      all.insert(factor);
    }
  }
  EXPECT_TRUE(least >= 0.8 && least < 0.805 && most < 1.2 && most > 1.195) << least << ' ' << most;
  EXPECT_EQ(all.size(), 1200U);
}

std::string pictures_of(int count) {
  return "fill(f, [(8, 8, 0, 2)] * " + std::to_string(count) + ")";
}

TEST_F(CaptionedFileFixture, ColorsFollowFromTheSampleAndItsEpochAlone) {
  PictureSettings settings;
  settings.color_jitter = 0.5;
  const auto path = make(pictures_of(6));
  const PictureDataset plain(path, {}), dataset(path, settings);
  const std::vector<std::int64_t> both = {3, 8}, one = {8};
  const auto first = [](const Leaf& leaf, std::size_t number) {
    const auto& group = dynamic_cast<const PictureLeaf&>(leaf).groups[0];
    const auto* begin = group.pixels.data() + number * 192;
    return std::vector<float>(begin, begin + 192);
  };
  const auto of = [&](const PictureDataset& data, std::int64_t epoch,
                      const std::vector<std::int64_t>& rows) {
    return first(*data.leaf({1, epoch}, rows), rows.size() - 1);
  };
  // Whatever else is in the leaf: so ranks, which have other leaves, draw the same.
  EXPECT_EQ(of(dataset, 0, both), of(dataset, 0, one));
  EXPECT_NE(of(dataset, 0, one), of(dataset, 1, one));
  // Rows 8 and 9 are one picture, seen twice.
  EXPECT_NE(of(dataset, 0, {8}), of(dataset, 0, {9}));
  EXPECT_EQ(of(plain, 0, {8}), of(plain, 0, {9}));
  // What is not seen again has no name by which its latents could be kept; the picture itself has.
  const auto made = dataset.leaf({1, 0}, both);
  EXPECT_EQ(dynamic_cast<const PictureLeaf&>(*made).views, (std::vector<std::string>{"", ""}));
  // As it is without the change, but for the colours.
  const auto bits = SampleKey{1, 0}.stream(8, kFirstDataDraw + 0x15).block(0);
  auto expected = of(plain, 0, one);
  change_colors(expected, draw_color_factors(bits, 0.5));
  EXPECT_EQ(of(dataset, 0, one), expected);
}

}  // namespace
}  // namespace lorascale::data
