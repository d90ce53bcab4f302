// Gradients of rows that were looked up, against index_add_ in fp64.
#include "nn/segment_sum.hpp"

#include <algorithm>
#include <numeric>

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::expect_close;
using test::noise;
using test::same_bits;

std::vector<std::int32_t> some_ids(std::int64_t count, std::int64_t rows, std::uint64_t seed) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    // Squared, so that some rows are met often and others never.
    const double u =
        static_cast<double>(mix64(seed + static_cast<std::uint64_t>(i)) >> 11) * 0x1p-53;
    ids.push_back(static_cast<std::int32_t>(u * u * static_cast<double>(rows)));
  }
  return ids;
}

at::Tensor expected(const at::Tensor& table, const std::vector<std::int32_t>& ids,
                    const at::Tensor& grad) {
  const at::Tensor index = at::tensor(at::ArrayRef<std::int32_t>(ids), at::kInt);
  return table.to(at::kDouble).index_add(0, index, grad.to(at::kDouble));
}

TEST(SegmentSumTest, IsTheValueOfIndexAdd) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const auto ids = some_ids(500, 40, 7);
    const at::Tensor grad = noise({500, 19}, 8).to(type);
    const at::Tensor before = noise({40, 19}, 9);
    at::Tensor table = before.clone();
    add_rows(table, ids, grad);
    expect_close(table, expected(before, ids, grad), 2e-6);
  }
}

TEST(SegmentSumTest, RowsThatNobodyLookedUpKeepTheirBits) {
  const at::Tensor before = noise({6, 3}, 1);
  at::Tensor table = before.clone();
  add_rows(table, std::vector<std::int32_t>{4, 1, 4}, noise({3, 3}, 2));
  for (const std::int64_t row : {0, 2, 3, 5}) {
    EXPECT_TRUE(same_bits(table[row], before[row])) << row;
  }
  add_rows(table, std::vector<std::int32_t>(), at::empty({0, 3}));
}

// A row's bits follow from its own summands in their order, wherever the others stand.
TEST(SegmentSumTest, BitsDoNotDependOnWhatStandsBetween) {
  constexpr std::int64_t kCount = 300, kRows = 12, kWidth = 7;
  const auto ids = some_ids(kCount, kRows, 3);
  const at::Tensor grad = noise({kCount, kWidth}, 4);
  at::Tensor table = at::zeros({kRows, kWidth});
  add_rows(table, ids, grad);
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    // Rows are dealt into a random order that keeps the order of equal ids.
    std::vector<std::int64_t> order(kCount);
    std::iota(order.begin(), order.end(), 0);
    std::ranges::sort(order, {}, [&](std::int64_t i) {
      return mix64(seed * 1000 + static_cast<std::uint64_t>(i));
    });
    std::vector<std::int32_t> dealt;
    for (const auto i : order) {
      dealt.push_back(ids[static_cast<std::size_t>(i)]);
    }
    std::vector<std::int64_t> next(kRows, 0), source;
    for (const auto id : dealt) {
      auto& from = next[static_cast<std::size_t>(id)];
      while (ids[static_cast<std::size_t>(from)] != id) {
        ++from;
      }
      source.push_back(from++);
    }
    at::Tensor other = at::zeros({kRows, kWidth});
    add_rows(other, dealt, grad.index_select(0, at::tensor(at::IntArrayRef(source))));
    EXPECT_TRUE(same_bits(table, other)) << seed;
  }
}

}  // namespace
}  // namespace lorascale::nn
