#include "adapters/formats/merge.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/small_model.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

using lorascale::test::same_bits;

// Multiples of `step` in [-1, 1], so that what follows is exact in fp32.
at::Tensor grid(at::IntArrayRef shape, std::uint64_t seed, double step) {
  return (lorascale::test::noise(shape, seed) / step).round() * step;
}

PeftModule module(at::IntArrayRef a, at::IntArrayRef b, double scale) {
  return {grid(a, 1, 0x1p-4), grid(b, 2, 0x1p-4), 1.0, scale};
}

// W + s B A by loops over single numbers in fp64: [out, in * kernel].
at::Tensor merged(const at::Tensor& weight, const PeftModule& module) {
  const at::Tensor before = weight.flatten(1).to(at::kDouble).contiguous();
  const at::Tensor a = module.a.flatten(1).to(at::kDouble).contiguous();
  const at::Tensor b = module.b.flatten(1).to(at::kDouble).contiguous();
  at::Tensor result = before.clone();
  for (std::int64_t out = 0; out < result.size(0); ++out) {
    for (std::int64_t in = 0; in < result.size(1); ++in) {
      double sum = 0;
      for (std::int64_t r = 0; r < a.size(0); ++r) {
        sum += b[out][r].item<double>() * a[r][in].item<double>();
      }
      result[out][in] += module.scale * sum;
    }
  }
  return result.view(weight.sizes());
}

// Rounded once: the change has more digits than bf16 and would lose them on its own.
TEST(Merge, AddsTheChangeAndRoundsOnce) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    test::SmallModel model(type);
    for (auto* weight :
         {&model.joint.weight, &model.up.weight, &model.query.weight, &model.kernel}) {
      weight->copy_(grid(weight->sizes(), 3, 0x1p-6));
    }
    const at::Tensor joint = model.joint.weight.clone();
    const at::Tensor up = model.up.weight.clone();
    const at::Tensor query = model.query.weight.clone();
    const at::Tensor kernel = model.kernel.clone();
    PeftAdapter adapter;
    adapter.modules = {{"model.layers.0.v_proj", module({2, 6}, {5, 2}, 0.5)},
                       {"model.layers.0.up_proj", module({3, 8}, {7, 3}, 2)},
                       {"model.stem.conv", module({2, 3, 2, 2}, {4, 2, 1, 1}, 0.25)}};
    const auto change = adapter.modules["model.layers.0.up_proj"].low_rank_change();
    EXPECT_FALSE(at::equal(change, change.to(at::kBFloat16).to(at::kFloat)));
    merge_into_weights(adapter, model.adapted().sites);
    const auto expect = [&](const std::string& name, const at::Tensor& now,
                            const at::Tensor& before) {
      EXPECT_TRUE(same_bits(now.contiguous(), merged(before, adapter.modules[name]).to(type)))
          << name << " in " << type;
    };
    expect("model.layers.0.v_proj", model.joint.weight.narrow(0, 8, 5), joint.narrow(0, 8, 5));
    expect("model.layers.0.up_proj", model.up.weight, up);
    expect("model.stem.conv", model.kernel, kernel);
    EXPECT_TRUE(same_bits(model.joint.weight.narrow(0, 0, 8), joint.narrow(0, 0, 8)));
    EXPECT_TRUE(same_bits(model.query.weight, query));
  }
}

std::string refusal(const std::string& name, const PeftModule& module) {
  test::SmallModel model;
  PeftAdapter adapter;
  adapter.base_model = "bases/Other";
  adapter.modules = {{name, module}};
  try {
    merge_into_weights(adapter, model.adapted().sites);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadInput);
    return error.what();
  }
  return "merged";
}

TEST(Merge, RefusesWhatIsOfAnotherModel) {
  EXPECT_EQ(refusal("model.layers.0.up_proj", module({2, 8}, {7, 2}, 1)), "merged");
  EXPECT_EQ(refusal("model.layers.2.up_proj", module({2, 8}, {7, 2}, 1)),
            "the adapter has layers that this model lacks; it was made for 'bases/Other'");
  for (const auto& [other, shape] : {std::pair(module({2, 7}, {7, 2}, 1), "7, 7"),
                                     std::pair(module({2, 8}, {1, 2}, 1), "1, 8")}) {
    EXPECT_EQ(
        refusal("model.layers.0.up_proj", other),
        std::string("the adapter's model.layers.0.up_proj does not fit this model's shape: it is "
                    "for weights of [") +
            shape + "], not [7, 8]; it was made for 'bases/Other'");
  }
}

}  // namespace
}  // namespace lorascale::adapters
