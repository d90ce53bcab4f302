// Captioned pictures as training sees them.
#include "data/pictures/picture_dataset.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "data/leaf_stream.hpp"
#include "data/pictures/support.hpp"

namespace lorascale::data {
namespace {

const PictureLeaf& pictures(const Leaf& leaf) {
  return dynamic_cast<const PictureLeaf&>(leaf);
}

// Buckets of 1 to 40 pictures, some repeated.
std::string many_pictures(std::int64_t ones, std::int64_t twos, std::int64_t threes) {
  return "fill(f, [(8, 8, 0, 1)] * " + std::to_string(ones) + " + [(8, 16, 1, 2)] * " +
         std::to_string(twos) + " + [(16, 8, 2, 3)] * " + std::to_string(threes) + ")";
}

TEST_F(CaptionedFileFixture, AnEpochHasEveryPictureAsOftenAsItRepeats) {
  for (const auto& path :
       make({many_pictures(40, 7, 1), many_pictures(1, 1, 1), many_pictures(17, 33, 5)})) {
    const PictureDataset dataset(path, {});
    for (const std::int64_t ranks : {1, 2, 3, 4}) {
      std::map<std::int64_t, std::int64_t> seen;
      std::vector<LeafStream> streams;
      const auto rows = dataset.rows();
      for (std::int64_t rank = 0; rank < ranks; ++rank) {
        LeafStream stream(dataset, 5, /*shuffle=*/true);
        // Updates of 8 in leaves of 2, each rank its share of them.
        for (std::int64_t at = 0; at < rows; at += 8) {
          const auto samples = std::min<std::int64_t>(8, rows - at), leaves = (samples + 1) / 2;
          const auto begin = leaves * rank / ranks, end = leaves * (rank + 1) / ranks;
          stream.begin_update(3 * rows + at, samples, 2, begin, end);
          for (auto leaf = begin; leaf < end; ++leaf) {
            const auto made = stream.next();
            for (const auto row : made->sample_ids) {
              ++seen[dataset.picture(row)];
            }
          }
        }
      }
      for (std::int64_t i = 0; i < dataset.file().images(); ++i) {
        EXPECT_EQ(seen[i], dataset.file().repeats(i)) << i << " of " << ranks << " ranks";
      }
    }
  }
}

TEST_F(CaptionedFileFixture, PicturesOfASizeStandTogetherAndInAnotherOrderEachEpoch) {
  const PictureDataset dataset(make(many_pictures(40, 20, 10)), {});
  const auto order = dataset.shuffled({1, 0});
  EXPECT_EQ(std::set(order.begin(), order.end()).size(), static_cast<std::size_t>(dataset.rows()));
  EXPECT_NE(order, dataset.shuffled({1, 1}));
  EXPECT_NE(order, dataset.shuffled({2, 0}));
  EXPECT_EQ(order, dataset.shuffled({1, 0}));
  std::int64_t changes = 0;
  for (std::size_t i = 1; i < order.size(); ++i) {
    const auto bucket = [&](std::size_t at) {
      return dataset.file().bucket(dataset.picture(order[at]));
    };
    changes += bucket(i) != bucket(i - 1) ? 1 : 0;
  }
  // 40, 40 and 30 samples in runs of 16 are 3, 3 and 2.
  EXPECT_LE(changes, 7);
}

TEST_F(CaptionedFileFixture, ALeafHasGroupsOfOneSize) {
  const PictureDataset dataset(make("fill(f, [(8, 8, 0, 1), (10, 16, 1, 1), (8, 8, 0, 1)])"), {});
  const std::vector<std::int64_t> rows = {2, 1, 0};
  const auto leaf = dataset.leaf({0, 0}, rows);
  const auto& groups = pictures(*leaf).groups;
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].samples, (std::vector<std::int64_t>{0, 2}));
  EXPECT_EQ(groups[1].samples, (std::vector<std::int64_t>{1}));
  EXPECT_EQ(groups[0].pixels.size(), 2U * 3 * 8 * 8);
  // Of 10 rows the middle 8: value (7 i + 13) mod 256 at i = 16 (one row), in [-1, 1].
  EXPECT_FLOAT_EQ(groups[1].pixels[0], static_cast<float>((7 * 16 + 13) % 256) / 127.5F - 1);
  EXPECT_EQ(pictures(*leaf).sizes[1], (std::array<std::int32_t, 6>{20, 48, 1, 0, 8, 16}));
}

TEST_F(CaptionedFileFixture, MirroredPicturesAreCutWhereTheyAreSeen) {
  PictureSettings settings;
  settings.flip = settings.random_crop = true;
  const PictureDataset dataset(make("fill(f, [(8, 30, 1, 1)])"), settings);
  const std::vector<std::int64_t> rows = {0};
  std::set<std::int32_t> places;
  int flipped = 0;
  for (std::int64_t epoch = 0; epoch < 200; ++epoch) {
    const auto made = dataset.leaf({0, epoch}, rows);
    const auto& leaf = pictures(*made);
    const auto left = leaf.sizes[0][3];
    ASSERT_TRUE(left >= 0 && left <= 14);
    places.insert(left);
    const auto pixel = [&](std::int64_t x) {
      return static_cast<float>((7 * x) % 256) / 127.5F - 1;
    };
    const bool mirrored = leaf.views[0].ends_with(":1");
    flipped += mirrored ? 1 : 0;
    // The first pixel that is seen, in the picture as it is stored.
    EXPECT_FLOAT_EQ(leaf.groups[0].pixels[0], pixel(mirrored ? 29 - left : left));
  }
  EXPECT_EQ(places.size(), 15U);
  EXPECT_NEAR(flipped, 100, 5 * std::sqrt(50));
}

TEST_F(CaptionedFileFixture, CaptionsBecomeRowsAsEachEncoderWantsThem) {
  PictureSettings settings;
  settings.rows = {2, 2, 5};  // three words a row
  const PictureDataset dataset(make("fill(f, [(8, 8, 0, 1)] * 2, encoders=2)"), settings);
  const std::vector<std::int64_t> rows = {1};
  const auto leaf = dataset.leaf({0, 0}, rows);
  // "a1," and "b," are two tokens each, "c" one.
  EXPECT_EQ(pictures(*leaf).ids, (std::vector<std::int32_t>{48, 1, 40, 31, 49, 48, 40, 32, 49, 49,
                                                            48, 1, 40, 31, 49, 48, 40, 32, 49, 0}));
}

TEST_F(CaptionedFileFixture, TagsAreShuffledAndLeftOutButForThoseToKeep) {
  PictureSettings settings;
  settings.caption = {true, 1, 0.25, 0.5};
  settings.rows = {1, 1, 8};
  const PictureDataset dataset(make("fill(f, [(8, 8, 0, 1)])"), settings);
  const std::vector<std::int64_t> rows = {0};
  std::map<std::vector<std::int32_t>, int> seen;
  constexpr int kEpochs = 2000;
  for (std::int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    const auto leaf = dataset.leaf({9, epoch}, rows);
    auto ids = pictures(*leaf).ids;
    ids.erase(std::remove(ids.begin(), ids.end(), 49), ids.end());
    ++seen[ids];
  }
  const auto share = [&](const std::vector<std::int32_t>& ids) {
    return static_cast<double>(seen[ids]) / kEpochs;
  };
  const double five_errors = 5 * std::sqrt(0.25 / kEpochs);
  EXPECT_NEAR(share({48}), 0.25, five_errors);         // no caption
  EXPECT_NEAR(share({48, 0}), 0.75 / 4, five_errors);  // the first tag alone
  EXPECT_NEAR(share({48, 0, 40, 31}), 0.75 / 4, five_errors);
  EXPECT_NEAR(share({48, 0, 40, 31, 40, 32}), 0.75 / 8, five_errors);  // in either order
  EXPECT_NEAR(share({48, 0, 40, 32, 40, 31}), 0.75 / 8, five_errors);
  EXPECT_EQ(seen.size(), 6U);
}

TEST_F(CaptionedFileFixture, WhatDoesNotSuitTheModelIsRefused) {
  const auto path = make("fill(f, [(8, 8, 0, 1)])");
  const auto message = [&](const PictureSettings& settings) {
    try {
      const PictureDataset dataset(path, settings);
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  PictureSettings coarse, two, masked;
  coarse.factor = 32;
  two.rows.encoders = 2;
  masked.use_mask = true;
  EXPECT_NE(message(coarse).find("multiples of 32"), std::string::npos);
  EXPECT_NE(message(two).find("captions for 1 text encoder(s)"), std::string::npos);
  EXPECT_NE(message(masked).find("holds no masks"), std::string::npos);
}

}  // namespace
}  // namespace lorascale::data
