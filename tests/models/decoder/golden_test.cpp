// Losses and logits of tiny models with published weights, from a re-implementation of the
// architecture that shares nothing with this one.
#include "support/tensors.hpp"
#include "tiny_decoder.hpp"

namespace lorascale::models::decoder {
namespace {

using test::expect_close;

TEST(GoldenTest, TheGeneratorIsThePublishedOne) {
  EXPECT_EQ(fnv1a64("conv_in.weight"), 2082520131938120871ULL);
  const auto first = golden_tensor("conv_in.weight", {3, 1}) / (2.0 * std::sqrt(3.0));
  expect_close(first, at::tensor({0.07125002, -0.38161784, 0.41715676}).view({3, 1}), 1e-7);
}

struct Golden {
  std::string name;
  Json json;
  double loss;
  std::vector<double> logits;  // ids 0-3 of the last position
};

Json with(Json json, const Json& changes) {
  json.update(changes);
  return json;
}

std::vector<Golden> goldens() {
  const Json llama3 = {{"rope_theta", 5e5},
                       {"rope_scaling",
                        {{"rope_type", "llama3"},
                         {"factor", 8.0},
                         {"low_freq_factor", 1.0},
                         {"high_freq_factor", 4.0},
                         {"original_max_position_embeddings", 64}}}};
  const Json linear = {{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}};
  const Json yarn = {
      {"rope_scaling",
       {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}}}};
  return {
      {"llama", tiny_json("llama"), 5.6133866, {-0.630042, 0.908711, -0.237740, 1.592809}},
      {"llama3",
       with(tiny_json("llama"), llama3),
       5.6589479,
       {-0.332585, 0.489654, 0.532080, 1.692449}},
      {"linear",
       with(tiny_json("llama"), linear),
       5.8714199,
       {-0.514791, 1.226439, 0.092548, 1.810427}},
      {"mistral",
       with(tiny_json("mistral"), {{"sliding_window", 4}}),
       5.4793186,
       {-1.504754, 1.448537, 1.493485, 1.151140}},
      {"qwen2", tiny_json("qwen2"), 6.0930505, {1.589531, -0.667702, 1.243317, -1.428239}},
      {"yarn",
       with(tiny_json("qwen2"), yarn),
       6.0595598,
       {1.726308, -0.359484, 1.210066, -1.248495}},
      {"qwen3", tiny_json("qwen3"), 5.9989100, {0.541916, -0.432106, 1.069223, -2.609648}},
  };
}

void check(Decoder& model, const data::TokenLeaf& leaf, const Golden& golden, double tolerance) {
  const auto result = model.evaluate(leaf);
  const double loss = result.loss_sum.item<double>() / static_cast<double>(result.targets);
  EXPECT_NEAR(loss, golden.loss, tolerance);
  const auto logits = model.logits(leaf)[11].narrow(0, 0, 4);
  expect_close(logits, at::tensor(golden.logits), tolerance);
  const auto accumulated = model.accumulate(leaf);
  EXPECT_NEAR(accumulated.loss_sum.item<double>(), result.loss_sum.item<double>(), 1e-5);
  EXPECT_EQ(accumulated.targets, result.targets);
}

// The labels of the first four tokens do not count.
data::TokenLeaf golden_leaf() {
  auto leaf = leaf_of({golden_ids(0, 12)});
  for (std::size_t position = 0; position < 3; ++position) {
    drop_label(leaf, position);
  }
  return leaf;
}

TEST(GoldenTest, EveryFamily) {
  for (const auto& golden : goldens()) {
    SCOPED_TRACE(golden.name);
    check(*golden_model(golden.json), golden_leaf(), golden, 1e-5);
  }
}

TEST(GoldenTest, TwoDocumentsInARow) {
  auto leaf = leaf_of({golden_ids(0, 7), golden_ids(7, 5)});
  for (std::size_t position = 0; position < 3; ++position) {
    drop_label(leaf, position);
  }
  check(*golden_model(tiny_json("llama")), leaf,
        {"packed", {}, 5.5977297, {-1.098480, 1.907362, 0.581373, 1.228205}}, 1e-5);
}

TEST(GoldenTest, SixteenBitIsNear) {
  for (const auto& golden : goldens()) {
    SCOPED_TRACE(golden.name);
    check(*golden_model(golden.json, at::kBFloat16), golden_leaf(), golden, 6e-2);
  }
}

}  // namespace
}  // namespace lorascale::models::decoder
