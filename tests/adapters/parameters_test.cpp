#include "adapters/parameters.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/tensors.hpp"

namespace lorascale::adapters {
namespace {

using lorascale::test::noise;
using lorascale::test::same_bits;

// Two entries in the first group, none in the second and two in the third.
TrainableParameters three_groups() {
  return TrainableParameters(
      {{{"first", 0, 0, 2.0, false, true, true}, {{"a", {2, 3}}, {"b", {4}}}},
       {{"empty"}, {}},
       {{"last"}, {{"c", {1, 2, 2, 2}}, {"d", {}}}}},
      at::kCPU);
}

TEST(TrainableParameters, LayGroupsOutOneAfterTheOther) {
  const auto parameters = three_groups();
  EXPECT_EQ(parameters.size(), 6 + 4 + 8 + 1);
  std::vector<std::string> names;
  std::vector<std::int64_t> offsets, sizes;
  for (const auto& entry : parameters.entries()) {
    names.push_back(entry.name);
    offsets.push_back(entry.offset);
    sizes.push_back(entry.size());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_EQ(offsets, (std::vector<std::int64_t>{0, 6, 10, 18}));
  EXPECT_EQ(sizes, (std::vector<std::int64_t>{6, 4, 8, 1}));
  std::vector<std::pair<std::int64_t, std::int64_t>> spans;
  for (const auto& group : parameters.groups()) {
    spans.emplace_back(group.begin, group.end);
  }
  EXPECT_EQ(spans,
            (std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 10}, {10, 10}, {10, 19}}));
  const auto& first = parameters.groups()[0];
  EXPECT_EQ(first.name, "first");
  EXPECT_EQ(first.lr_ratio, 2.0);
  EXPECT_FALSE(first.decays);
  EXPECT_TRUE(first.vectors && first.starts_at_zero);
}

TEST(TrainableParameters, BeginAtZeroInVectorsOfTheirOwn) {
  const auto parameters = three_groups();
  EXPECT_TRUE(same_bits(parameters.master(), at::zeros({19})));
  EXPECT_TRUE(same_bits(parameters.gradient(), at::zeros({19})));
  at::Tensor(parameters.gradient()).fill_(1);
  EXPECT_TRUE(same_bits(parameters.master(), at::zeros({19})));
}

// A view is the entry's own place in whatever flat vector it is taken of.
TEST(TrainableParameters, ViewsAreTheEntrysOwnPlace) {
  const auto parameters = three_groups();
  const at::Tensor flat = at::arange(19, at::kFloat);
  const auto& entries = parameters.entries();
  EXPECT_TRUE(same_bits(TrainableParameters::view(flat, entries[2]),
                        at::arange(10, 18, at::kFloat).view({1, 2, 2, 2})));
  TrainableParameters::view(flat, entries[1]).fill_(-1);
  TrainableParameters::view(flat, entries[3]).fill_(-2);
  EXPECT_EQ(flat[5].item<float>(), 5);
  for (int i = 6; i < 10; ++i) {
    EXPECT_EQ(flat[i].item<float>(), -1);
  }
  EXPECT_EQ(flat[10].item<float>(), 10);
  EXPECT_EQ(flat[18].item<float>(), -2);
}

// In fp32 the model computes with the master itself; in 16 bit with a copy, rounded to the nearest
// value, that moves when it is told to and not before.
TEST(TrainableParameters, AreComputedWithAsViewsOrRoundedCopies) {
  auto parameters = three_groups();
  const auto& entries = parameters.entries();
  const at::Tensor view = parameters.computed(entries[0], at::kFloat);
  const at::Tensor brain = parameters.computed(entries[1], at::kBFloat16);
  const at::Tensor half = parameters.computed(entries[2], at::kHalf);
  EXPECT_EQ(brain.scalar_type(), at::kBFloat16);
  EXPECT_EQ(half.sizes(), at::IntArrayRef({1, 2, 2, 2}));
  parameters.refresh();
  EXPECT_EQ(brain.to(at::kFloat).abs().max().item<float>(), 0);
  at::Tensor master = parameters.master();
  master.copy_(noise({19}, 7));
  master[6] = 1.00390625F + 0x1p-20F;  // just above the middle of two neighbours in bf16
  EXPECT_TRUE(same_bits(view, master.narrow(0, 0, 6).view({2, 3})));
  EXPECT_EQ(brain.to(at::kFloat).abs().max().item<float>(), 0) << "before refresh()";
  parameters.refresh();
  EXPECT_EQ(brain[0].item<float>(), 1.0078125F);
  EXPECT_TRUE(same_bits(brain, master.narrow(0, 6, 4).to(at::kBFloat16)));
  EXPECT_TRUE(same_bits(half, master.narrow(0, 10, 8).to(at::kHalf).view({1, 2, 2, 2})));
}

// A weight that a model has already follows in the same way, at its own place.
TEST(TrainableParameters, KeepAModelsOwnTensorRounded) {
  auto parameters = three_groups();
  const at::Tensor weight = at::ones({3, 2}, at::kBFloat16);
  parameters.keep_rounded(weight, parameters.master().narrow(0, 2, 6).view({3, 2}));
  at::Tensor(parameters.master()).copy_(noise({19}, 8));
  parameters.refresh();
  EXPECT_TRUE(
      same_bits(weight, parameters.master().narrow(0, 2, 6).view({3, 2}).to(at::kBFloat16)));
}

}  // namespace
}  // namespace lorascale::adapters
