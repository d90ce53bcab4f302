// Sums of leaves on 1 to 4 ranks against sums that a rank forms of all leaves on its own.
#include "train/gradient_sum.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "comm/mpi_communicator.hpp"
#include "coordinator/facts.hpp"
#include "support/tensors.hpp"
#include "train/tensor_memory.hpp"

namespace lorascale::train {
namespace {

using lorascale::test::noise;
using lorascale::test::same_bits;

class GradientSumTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { count_cpu_tensors(); }

  [[nodiscard]] coordinator::LeafRange mine(std::int64_t leaves) const {
    return coordinator::leaves_of_rank(leaves, host_.rank(), host_.size());
  }
  // The sum as an update forms it, by the leaves of this rank.
  void sum(GradientSum& sum, const at::Tensor& gradient, const std::vector<at::Tensor>& leaves,
           at::Tensor facts) {
    const auto count = static_cast<std::int64_t>(leaves.size());
    sum.begin(count);
    EXPECT_TRUE(same_bits(gradient, at::zeros_like(gradient)));
    const auto [begin, end] = mine(count);
    for (auto leaf = begin; leaf < end; ++leaf) {
      at::Tensor(gradient).add_(leaves[static_cast<std::size_t>(leaf)]);
      sum.take(leaf);
    }
    sum.reduce(facts);
  }

  comm::MpiCommunicator host_{30};
  World world_{host_, host_, at::kCPU, "here"};
};

// Large numbers that nearly cancel, and small ones that only some orders of adding keep.
std::vector<at::Tensor> adversarial(std::int64_t leaves, std::int64_t size) {
  std::vector<at::Tensor> result;
  for (std::int64_t leaf = 0; leaf < leaves; ++leaf) {
    const at::Tensor large = noise({size}, 1, 1e7) * (leaf % 3 == 1 ? -1 : 1);
    const at::Tensor small = noise({size}, static_cast<std::uint64_t>(100 + leaf), 1e-2);
    result.push_back((leaf % 4 == 3 ? small : large + small));
  }
  return result;
}

// The tree by its definition: neighbours are added, level by level; one without goes up as it is.
at::Tensor by_the_tree(std::vector<at::Tensor> values) {
  while (values.size() > 1) {
    std::vector<at::Tensor> next;
    for (std::size_t i = 0; i + 1 < values.size(); i += 2) {
      next.push_back(values[i] + values[i + 1]);
    }
    if (values.size() % 2 == 1) {
      next.push_back(values.back());
    }
    values = std::move(next);
  }
  return values[0];
}

// The tree's bits know no ranks, so agreeing with them on each number of ranks is to be the same on
// all.
TEST_F(GradientSumTest, ExactIsTheSameBitsOnAnyNumberOfRanks) {
  bool order_matters = false;
  for (const std::int64_t leaves : {1, 2, 3, 4, 5, 7, 8, 13, 32}) {
    const at::Tensor gradient = noise({257}, 9);  // of the update before
    const auto exact = make_gradient_sum(config::Reduction::kExact, false, world_, gradient);
    const auto values = adversarial(leaves, 257);
    at::Tensor facts = at::ones({3}, at::kDouble);
    sum(*exact, gradient, values, facts);
    const at::Tensor expected = by_the_tree(values);
    EXPECT_TRUE(same_bits(gradient, expected)) << leaves << " leaves";
    EXPECT_TRUE(same_bits(facts, at::full({3}, host_.size(), at::kDouble)));
    at::Tensor in_order = values[0].clone();
    for (std::size_t i = 1; i < values.size(); ++i) {
      in_order += values[i];
    }
    order_matters |= !same_bits(in_order, expected);
  }
  EXPECT_TRUE(order_matters) << "or the test could not fail";
}

// More than is gathered at a time, with a last piece that is shorter.
TEST_F(GradientSumTest, ExactSumsLongVectorsInPieces) {
  constexpr std::int64_t kSize = (1 << 22) + 5;
  const at::Tensor gradient = at::zeros({kSize});
  const auto exact = make_gradient_sum(config::Reduction::kExact, false, world_, gradient);
  const at::Tensor ramp = at::arange(kSize, at::kFloat);
  std::vector<at::Tensor> values;
  for (int leaf = 0; leaf < 7; ++leaf) {
    values.push_back((ramp - 1000.0 * leaf) * (0.1 + 0.7 * leaf));
  }
  sum(*exact, gradient, values, at::zeros({1}, at::kDouble));
  EXPECT_TRUE(same_bits(gradient, by_the_tree(values)));
}

TEST_F(GradientSumTest, FastIsTheSumUpToRounding) {
  for (const bool leaf_by_leaf : {false, true}) {
    for (const std::int64_t leaves : {1, 2, 5, 13}) {
      const at::Tensor gradient = noise({257}, 9);
      const auto fast = make_gradient_sum(config::Reduction::kFast, leaf_by_leaf, world_, gradient);
      std::vector<at::Tensor> values;
      at::Tensor expected = at::zeros({257}, at::kDouble);
      for (std::int64_t leaf = 0; leaf < leaves; ++leaf) {
        values.push_back(noise({257}, static_cast<std::uint64_t>(leaf)));
        expected += values.back().to(at::kDouble);
      }
      for (int update = 0; update < 2; ++update) {  // the second begins anew
        at::Tensor facts = at::full({2}, 1.0 + host_.rank(), at::kDouble);
        sum(*fast, gradient, values, facts);
        lorascale::test::expect_close(gradient, expected, 2e-6);
        EXPECT_EQ(facts[1].item<double>(), host_.size() * (host_.size() + 1) / 2.0);
      }
    }
  }
}

// Whoever looks at a leaf by itself finds it alone in the vector.
TEST_F(GradientSumTest, EveryLeafIsAloneWhereItIsLookedAt) {
  for (const auto reduction : {config::Reduction::kFast, config::Reduction::kExact}) {
    const at::Tensor gradient = at::zeros({16});
    const auto sum = make_gradient_sum(reduction, true, world_, gradient);
    sum->begin(8);
    const auto [begin, end] = mine(8);
    for (auto leaf = begin; leaf < end; ++leaf) {
      EXPECT_TRUE(same_bits(gradient, at::zeros({16}))) << static_cast<int>(reduction);
      at::Tensor(gradient).fill_(static_cast<double>(leaf));
      sum->take(leaf);
    }
    at::Tensor facts = at::zeros({1}, at::kDouble);
    sum->reduce(facts);
    EXPECT_TRUE(same_bits(gradient, at::full({16}, 28.0F))) << static_cast<int>(reduction);
  }
}

// What rehearsals reckon with is what is taken: kept between leaves, and in the reduction for a
// moment. Vectors are large, so that scalars beside them do not count.
TEST_F(GradientSumTest, TakesTheMemoryThatItAnnounces) {
  constexpr std::int64_t kSize = 1 << 16;
  const auto bytes = [](std::int64_t elements) { return static_cast<double>(elements * 4); };
  const auto now = [] { return static_cast<double>(tensor_memory(at::kCPU).now); };
  for (const auto reduction : {config::Reduction::kFast, config::Reduction::kExact}) {
    for (const std::int64_t leaves : {1, 2, 5, 7, 13, 16}) {
      const at::Tensor gradient = at::zeros({kSize});
      const auto sum = make_gradient_sum(reduction, true, world_, gradient);
      sum->begin(leaves);
      const double before = now();
      const auto [begin, end] = mine(leaves);
      for (auto leaf = begin; leaf < end; ++leaf) {
        sum->take(leaf);
        EXPECT_NEAR(now() - before, bytes(sum->kept_elements(begin, leaf + 1)), 8192)
            << static_cast<int>(reduction) << ", leaf " << leaf << " of " << leaves;
      }
      const double held = now();
      reset_peak_memory(at::kCPU);
      at::Tensor facts = at::zeros({1}, at::kDouble);
      sum->reduce(facts);
      const double most = static_cast<double>(tensor_memory(at::kCPU).peak) - held;
      EXPECT_LE(most, bytes(sum->temporary_elements()) + 8192)
          << static_cast<int>(reduction) << ", " << leaves;
      EXPECT_GE(most, bytes(sum->temporary_elements()) / 2)
          << static_cast<int>(reduction) << ", " << leaves;
    }
  }
}

}  // namespace
}  // namespace lorascale::train
