// The same bits for any number of ranks, and the tree that the header describes (V18).
#include "comm/leaf_tree.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/rng.hpp"

namespace lorascale::comm {
namespace {

using Vector = std::vector<float>;

Vector leaf_vector(std::uint32_t leaf, std::size_t size) {
  Vector values(size);
  for (std::size_t i = 0; i < size; ++i) {
    const auto block = philox4x32({static_cast<std::uint32_t>(i), leaf, 0, 0}, {5, 6});
    // Over several orders of magnitude, of both signs: every order of addition rounds differently.
    values[i] = (static_cast<float>(block[0]) * 0x1p-31F - 1.0F) *
                std::exp2(static_cast<float>(block[1] % 12));
  }
  return values;
}

void add(Vector& left, const Vector& right) {
  for (std::size_t i = 0; i < left.size(); ++i) {
    left[i] += right[i];
  }
}

// By the definition: level by level, nodes without a right neighbour joined at the end.
Vector by_definition(std::vector<Vector> level) {
  std::vector<Vector> left_over;  // from right to left
  while (level.size() > 1) {
    if (level.size() % 2 == 1) {
      left_over.push_back(level.back());
      level.pop_back();
    }
    std::vector<Vector> next;
    for (std::size_t i = 0; i < level.size(); i += 2) {
      next.push_back(level[i]);
      add(next.back(), level[i + 1]);
    }
    level = std::move(next);
  }
  if (left_over.empty()) {
    return level[0];
  }
  left_over.push_back(level[0]);
  Vector sum = left_over[0];
  for (std::size_t i = 1; i < left_over.size(); ++i) {
    Vector node = left_over[i];
    add(node, sum);
    sum = std::move(node);
  }
  return sum;
}

struct Interval {
  std::int64_t begin, end;
};
Interval leaves_of(std::int64_t leaves, int rank, int ranks) {
  return {leaves * rank / ranks, leaves * (rank + 1) / ranks};
}

Vector over_ranks(const std::vector<Vector>& leaves, int ranks, std::size_t* most = nullptr) {
  LeafTree<Vector> whole(add);
  for (int rank = 0; rank < ranks; ++rank) {
    const auto mine = leaves_of(static_cast<std::int64_t>(leaves.size()), rank, ranks);
    LeafTree<Vector> tree(add);
    for (auto leaf = mine.begin; leaf < mine.end; ++leaf) {
      tree.push({0, leaf}, leaves[static_cast<std::size_t>(leaf)]);
    }
    const auto places = subtrees_of(mine.begin, mine.end);
    EXPECT_EQ(places.size(), tree.nodes().size());
    if (most != nullptr) {
      *most = std::max(*most, places.size());
    }
    for (std::size_t i = 0; i < places.size(); ++i) {
      EXPECT_EQ(places[i], tree.nodes()[i].first);
      whole.push(places[i], tree.nodes()[i].second);
    }
  }
  return whole.total();
}

bool same_bits(const Vector& a, const Vector& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<Vector> make_leaves(std::int64_t count, std::size_t size) {
  std::vector<Vector> leaves;
  for (std::int64_t leaf = 0; leaf < count; ++leaf) {
    leaves.push_back(leaf_vector(static_cast<std::uint32_t>(leaf), size));
  }
  return leaves;
}

TEST(LeafTree, SixtyFourLeavesOnAnyNumberOfRanks) {
  const auto leaves = make_leaves(64, 4096);
  const auto expected = by_definition(leaves);
  std::size_t most = 0;
  for (const int ranks : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 31, 64}) {
    EXPECT_TRUE(same_bits(over_ranks(leaves, ranks, &most), expected)) << ranks;
  }
  EXPECT_LE(most, 6U);  // vectors that a rank sends
}

TEST(LeafTree, AnyNumberOfLeaves) {
  for (std::int64_t count = 1; count <= 40; ++count) {
    const auto leaves = make_leaves(count, 64);
    const auto expected = by_definition(leaves);
    for (int ranks = 1; ranks <= 9; ++ranks) {  // with more ranks than leaves, too
      EXPECT_TRUE(same_bits(over_ranks(leaves, ranks), expected)) << count << " on " << ranks;
    }
  }
}

// The control: sums of ranks' own sums depend on who has what.
TEST(LeafTree, AddingRankByRankDoesNot) {
  const auto leaves = make_leaves(64, 4096);
  const auto by_rank = [&](int ranks) {
    Vector sum;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto mine = leaves_of(64, rank, ranks);
      Vector own = leaves[static_cast<std::size_t>(mine.begin)];
      for (auto leaf = mine.begin + 1; leaf < mine.end; ++leaf) {
        add(own, leaves[static_cast<std::size_t>(leaf)]);
      }
      if (rank == 0) {
        sum = std::move(own);
      } else {
        add(sum, own);
      }
    }
    return sum;
  };
  const auto one = by_rank(1), four = by_rank(4);
  std::size_t different = 0;
  for (std::size_t i = 0; i < one.size(); ++i) {
    different += one[i] != four[i] ? 1 : 0;
  }
  EXPECT_GT(different, one.size() / 2);
}

TEST(LeafTree, ARankIsLeftWithAtMostTwoNodesPerLevel) {
  EXPECT_EQ(subtrees_of(0, 8), (std::vector<Subtree>{{3, 0}}));
  EXPECT_EQ(subtrees_of(3, 8), (std::vector<Subtree>{{0, 3}, {2, 1}}));
  EXPECT_EQ(subtrees_of(1, 7), (std::vector<Subtree>{{0, 1}, {1, 1}, {1, 2}, {0, 6}}));
  EXPECT_TRUE(subtrees_of(5, 5).empty());
}

}  // namespace
}  // namespace lorascale::comm
