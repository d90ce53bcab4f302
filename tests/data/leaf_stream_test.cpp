#include "data/leaf_stream.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "data/sampler.hpp"

namespace lorascale::data {
namespace {

using Rows = std::vector<std::int64_t>;

struct BareLeaf : Leaf {
  void drop_targets() override {}
};

// Rows without content. Row `broken` cannot be read.
class BareDataset : public Dataset {
 public:
  explicit BareDataset(std::int64_t rows, std::int64_t broken = -1)
      : rows_(rows), broken_(broken) {}

  [[nodiscard]] std::int64_t rows() const override { return rows_; }
  [[nodiscard]] std::int64_t targets_per_epoch() const override { return rows_; }
  [[nodiscard]] std::unique_ptr<Leaf> leaf(const SampleKey& key,
                                           std::span<const std::int64_t> rows) const override {
    if (std::ranges::find(rows, broken_) != rows.end()) {
      throw_bad_input("row " + std::to_string(broken_) + " is damaged; make the file again");
    }
    auto leaf = std::make_unique<BareLeaf>();
    leaf->key = key;
    leaf->sample_ids.assign(rows.begin(), rows.end());
    leaf->units = static_cast<std::int64_t>(rows.size());
    return leaf;
  }
  [[nodiscard]] Rows heaviest(std::int64_t count) const override {  // the last ones
    Rows rows(static_cast<std::size_t>(std::min(count, rows_)));
    std::iota(rows.rbegin(), rows.rend(), rows_ - static_cast<std::int64_t>(rows.size()));
    return rows;
  }
  [[nodiscard]] std::string fingerprint() const override { return "bare"; }
  [[nodiscard]] std::string summary() const override { return "bare"; }
  [[nodiscard]] std::string path() const override { return "bare"; }

 private:
  std::int64_t rows_, broken_;
};

// The rows of the leaves that one rank is given of an update; the key of each must be the epoch's.
void take(LeafStream& stream, std::int64_t leaves, std::uint64_t seed, std::int64_t epoch,
          Rows& rows) {
  for (std::int64_t i = 0; i < leaves; ++i) {
    const auto leaf = stream.next();
    EXPECT_EQ(leaf->key.seed, seed);
    EXPECT_EQ(leaf->key.epoch, epoch);
    rows.insert(rows.end(), leaf->sample_ids.begin(), leaf->sample_ids.end());
  }
}

Rows epoch_order(std::int64_t rows, std::uint64_t seed, std::int64_t epoch) {
  const EpochOrder order(rows, seed, epoch);
  Rows result;
  for (std::int64_t position = 0; position < rows; ++position) {
    result.push_back(order.row_at(position));
  }
  return result;
}

constexpr std::int64_t kRows = 37;
constexpr std::uint64_t kSeed = 11;

// Rows of epochs 0 to 2 by updates of `batch` samples, the last of an epoch a short one, of leaves
// of `leaf_size` over `ranks` ranks with as many leaves each as can be.
std::vector<Rows> rows_by(std::int64_t batch, std::int64_t leaf_size, std::int64_t ranks,
                          bool shuffle) {
  const BareDataset set(kRows);
  std::vector<std::unique_ptr<LeafStream>> streams;
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    streams.push_back(std::make_unique<LeafStream>(set, kSeed, shuffle));
  }
  std::vector<Rows> epochs(3);
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    for (std::int64_t start = 0; start < kRows; start += batch) {
      const auto samples = std::min(batch, kRows - start);
      const auto leaves = (samples + leaf_size - 1) / leaf_size;
      for (std::int64_t rank = 0; rank < ranks; ++rank) {
        const auto begin = leaves * rank / ranks, end = leaves * (rank + 1) / ranks;
        auto& stream = *streams[static_cast<std::size_t>(rank)];
        stream.begin_update(epoch * kRows + start, samples, leaf_size, begin, end);
        take(stream, end - begin, kSeed, epoch, epochs[static_cast<std::size_t>(epoch)]);
      }
    }
  }
  return epochs;
}

TEST(LeafStreamTest, AnySplitYieldsTheOrderOfTheEpoch) {
  for (const auto& [batch, leaf_size, ranks] : std::vector<std::array<std::int64_t, 3>>{
           {1, 1, 1}, {37, 37, 1}, {10, 3, 1}, {10, 3, 2}, {10, 10, 3}, {16, 1, 5}, {36, 7, 4}}) {
    const auto epochs = rows_by(batch, leaf_size, ranks, true);
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      EXPECT_EQ(epochs[static_cast<std::size_t>(epoch)], epoch_order(kRows, kSeed, epoch))
          << "epoch " << epoch << ", updates of " << batch << " in leaves of " << leaf_size
          << " over " << ranks << " ranks";
    }
  }
}

TEST(LeafStreamTest, WithoutShufflingTheOrderIsTheFilesInEveryEpoch) {
  Rows in_order(kRows);
  std::iota(in_order.begin(), in_order.end(), 0);
  EXPECT_EQ(rows_by(10, 3, 2, false), std::vector<Rows>(3, in_order));
}

TEST(LeafStreamTest, LeavesOfAnUpdateAreFullUpToTheLast) {
  const BareDataset set(kRows);
  LeafStream stream(set, kSeed, true);
  stream.begin_update(20, 8, 3, 0, 3);
  for (const std::int64_t size : {3, 3, 2}) {
    EXPECT_EQ(stream.next()->units, size);
  }
}

// An update is given up after some of its leaves, others being prepared or not yet begun, and tried
// again or left for another.
TEST(LeafStreamTest, ANewUpdateForgetsWhatWasLeftOver) {
  const BareDataset set(kRows);
  const auto order = epoch_order(kRows, kSeed, 1);
  LeafStream stream(set, kSeed, true);
  for (int round = 0; round < 200; ++round) {
    stream.begin_update(0, 30, 1, 0, 30);
    for (int taken = 0; taken < round % 7; ++taken) {
      static_cast<void>(stream.next());
    }
    stream.begin_update(kRows + 5, 4, 2, 0, 2);
    Rows rows;
    take(stream, 2, kSeed, 1, rows);
    ASSERT_EQ(rows, Rows(order.begin() + 5, order.begin() + 9)) << "round " << round;
  }
}

TEST(LeafStreamTest, AnErrorOfTheDataSetComesOutOfNext) {
  const auto order = epoch_order(kRows, kSeed, 0);
  const BareDataset set(kRows, order[5]);
  LeafStream stream(set, kSeed, true);
  stream.begin_update(0, 8, 2, 0, 4);
  EXPECT_EQ(stream.next()->sample_ids, Rows(order.begin(), order.begin() + 2));
  EXPECT_EQ(stream.next()->sample_ids, Rows(order.begin() + 2, order.begin() + 4));
  try {
    static_cast<void>(stream.next());
    ADD_FAILURE() << "leaf 2 holds the broken row";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    EXPECT_NE(std::string(error.what()).find("is damaged"), std::string::npos);
  }
  EXPECT_EQ(stream.next()->sample_ids, Rows(order.begin() + 6, order.begin() + 8));
  stream.begin_update(6, 2, 2, 0, 1);
  EXPECT_EQ(stream.next()->sample_ids, Rows(order.begin() + 6, order.begin() + 8));
}

TEST(LeafStreamTest, LeavesOutsideTheStream) {
  const BareDataset set(kRows);
  const auto in_order = leaf_in_order(set, {4, 2}, 30, 3);
  EXPECT_EQ(in_order->sample_ids, (Rows{30, 31, 32}));
  EXPECT_EQ(in_order->key.epoch, 2);
  EXPECT_EQ(heaviest_leaf(set, {}, 3)->sample_ids, (Rows{36, 35, 34}));
}

}  // namespace
}  // namespace lorascale::data
