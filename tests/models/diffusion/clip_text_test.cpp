// Gradients of a tiny text encoder against differences of its own forward.
#include "models/diffusion/clip_text.hpp"

#include <cmath>
#include <tuple>

#include "slots.hpp"

namespace lorascale::models::diffusion {
namespace {

using test::noise;

ClipTextConfig tiny(std::int64_t projection = 0) {
  return {.vocabulary = 20,
          .positions = 9,
          .hidden = 8,
          .intermediate = 12,
          .layers = 3,
          .heads = 2,
          .activation = nn::Activation::kQuickGelu,
          .projection = projection,
          .end_token = 19};
}

at::Tensor ids() {
  return at::tensor({18, 1, 5, 3, 19, 19, 19, 19, 19, 18, 4, 4, 2, 7, 8, 9, 10, 19}, at::kLong)
      .view({2, 9});
}

template <class Of>
void check(const ClipTextConfig& config, const ContextChoice& choice, Of&& of) {
  ClipTextEncoder encoder(config, at::TensorOptions().dtype(at::kDouble));
  const auto slots = encoder.parameter_slots();
  fill(slots);
  const auto dcontext = noise({2, 9, 8}, 1).to(at::kDouble);
  const auto dpooled =
      config.projection > 0 ? noise({2, config.projection}, 2).to(at::kDouble) : at::Tensor();
  const auto loss = [&] {
    const auto result = encoder.forward(ids(), choice, nullptr, nullptr);
    auto sum = (result.context * dcontext).sum();
    if (dpooled.defined()) {
      sum = sum + (result.pooled * dpooled).sum();
    }
    return sum.item<double>();
  };
  train(slots, of);
  ClipTextSaved saved;
  const auto result = encoder.forward(ids(), choice, nullptr, &saved);
  test::expect_close(result.context, encoder.forward(ids(), choice, nullptr, nullptr).context,
                     1e-12, "context");
  encoder.backward(dcontext, dpooled, choice, nullptr, saved);
  expect_gradients_by_differences(slots, loss);
}

TEST(ClipTextTest, EveryGradient) {
  const auto all = [](const std::string&) { return true; };
  check(tiny(), {}, all);
  check(tiny(5), {.skip = 1, .final_norm = true}, all);
  check(tiny(5), {.skip = 2, .final_norm = false}, all);
}

TEST(ClipTextTest, SkippedLayersAreNotRun) {
  check(tiny(), {.skip = 2, .final_norm = true},
        [](const std::string& key) { return key.find("layers.2") == key.npos; });
}

TEST(ClipTextTest, StopsAtTheFirstLayerThatTrains) {
  for (const auto* part : {"text_model.encoder.layers.2.mlp.fc1", "text_model.encoder.layers.1",
                           "text_model.encoder.layers.0.layer_norm1"}) {
    check(tiny(5), {}, [&](const std::string& key) { return key.starts_with(part); });
  }
}

// Ids behind the vocabulary, one of them in both rows of text, beside what else trains.
void check_new_tokens(const ClipTextConfig& config, const ContextChoice& choice,
                      const std::string& trained) {
  const auto type = at::TensorOptions().dtype(at::kDouble);
  ClipTextEncoder encoder(config, type);
  auto slots = encoder.parameter_slots();
  auto& added = encoder.new_tokens();
  added.rows = at::zeros({2, 8}, type);
  slots.push_back({{{"new", {2, 8}}}, &added.rows, &added.gradient});
  fill(slots);
  at::Tensor with_new = ids();
  for (const auto& [row, place, id] : {std::tuple{0, 2, 20}, {0, 3, 21}, {1, 6, 20}, {1, 7, 20}}) {
    with_new[row][place] = id;
  }
  const auto dcontext = noise({2, 9, 8}, 1).to(at::kDouble);
  const auto dpooled =
      config.projection > 0 ? noise({2, config.projection}, 2).to(at::kDouble) : at::Tensor();
  EXPECT_FALSE(encoder.trains());
  train(slots, [&](const std::string& key) { return key == "new" || key.starts_with(trained); });
  EXPECT_TRUE(encoder.trains());
  ClipTextSaved saved;
  static_cast<void>(encoder.forward(with_new, choice, nullptr, &saved));
  encoder.backward(dcontext, dpooled, choice, nullptr, saved);
  expect_gradients_by_differences(slots, [&] {
    const auto result = encoder.forward(with_new, choice, nullptr, nullptr);
    const auto sum = (result.context * dcontext).sum();
    return (dpooled.defined() ? sum + (result.pooled * dpooled).sum() : sum).item<double>();
  });
}

TEST(ClipTextTest, NewTokensLearnThroughFrozenLayersAndTrainedOnes) {
  check_new_tokens(tiny(), {}, "none");
  check_new_tokens(tiny(5), {.skip = 2, .final_norm = false}, "none");
  check_new_tokens(tiny(5), {}, "text_model.encoder.layers.2.mlp.fc1");
}

TEST(ClipTextTest, NewTokensAreRowsBehindTheTable) {
  ClipTextEncoder encoder(tiny(), at::TensorOptions().dtype(at::kFloat));
  const auto slots = encoder.parameter_slots();
  fill(slots);
  const auto before = encoder.forward(ids(), {}, nullptr, nullptr).context;
  const auto table = encoder.token_table("text_encoder");
  // Id 21 is 5 by another number.
  table.added->rows = table.weight.index_select(0, at::tensor({7, 5}, at::kLong));
  const auto renamed = at::where(ids().eq(5), 21, ids());
  EXPECT_FALSE(encoder.trains());
  test::expect_close(encoder.forward(renamed, {}, nullptr, nullptr).context, before, 0, "context");
}

}  // namespace
}  // namespace lorascale::models::diffusion
