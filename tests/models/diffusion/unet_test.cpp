// Gradients of a tiny UNet against autograd through its own forward.
#include "models/diffusion/unet.hpp"

#include <ATen/core/grad_mode.h>

#include <cmath>

#include "nn/lora_linear.hpp"
#include "slots.hpp"

namespace lorascale::models::diffusion {
namespace {

using test::noise;

UNetConfig tiny() {
  UNetConfig config;
  config.levels = {{8, 1, 2}, {16, 2, 4}, {16, 0, 4}};
  config.layers_per_level = 2;
  config.context = 6;
  config.groups = 4;
  return config;
}

struct Inputs {
  at::Tensor latents = noise({2, 4, 6, 5}, 1).to(at::kDouble);
  at::Tensor t = at::tensor({3.0, 700.5});
  at::Tensor context = noise({2, 7, 6}, 2).to(at::kDouble);
  at::Tensor added;
};

template <class Of>
void check(const UNetConfig& config, bool recompute, Of&& of, bool with_context = true) {
  SCOPED_TRACE(recompute ? "computed again" : "kept");
  UNet unet(config, at::TensorOptions().dtype(at::kDouble));
  unet.set_recompute(recompute);
  const auto slots = unet.parameter_slots();
  fill(slots);
  Inputs in;
  if (config.addition > 0) {
    in.added = noise({2, config.addition}, 3).to(at::kDouble);
  }
  const auto grad = noise({2, config.out_channels, 6, 5}, 4).to(at::kDouble);
  follow(slots, true);
  in.context.requires_grad_(true);
  const auto expected = unet.forward(in.latents, in.t, in.context, in.added, nullptr, nullptr);
  const auto expected_context = test::autograd_of(expected, grad, {in.context})[0];
  train(slots, of);
  {
    const at::AutoGradMode no_grad(false);
    UNetSaved saved;
    const auto y = unet.forward(in.latents, in.t, in.context, in.added, nullptr, &saved);
    test::expect_close(y, expected, 1e-12, "output");
    at::Tensor dcontext = with_context ? at::zeros_like(in.context) : at::Tensor();
    unet.backward(grad, in.context, nullptr, saved, dcontext);
    if (with_context) {
      test::expect_close(dcontext, expected_context, 1e-10, "context");
    }
  }
  expect_gradients(slots, expected, grad);
}

TEST(UNetTest, EveryGradient) {
  for (const bool recompute : {false, true}) {
    check(tiny(), recompute, [](const std::string&) { return true; });
  }
}

TEST(UNetTest, WithWhatSdxlAdds) {
  auto config = tiny();
  config.addition = 10;
  check(config, /*recompute=*/false,
        [](const std::string& key) { return key.find("embedding") != key.npos; });
}

TEST(UNetTest, StopsAtTheFirstPartThatTrains) {
  for (const auto* part :
       {"conv_out", "up_blocks.1.attentions.2.transformer_blocks.1.attn2.to_q",
        "up_blocks.0.resnets.0.conv1", "mid_block.attentions", "mid_block.resnets.0",
        "down_blocks.1.downsamplers", "down_blocks.1.resnets.1.time_emb_proj",
        "down_blocks.0.attentions.0", "conv_in", "time_embedding.linear_1"}) {
    SCOPED_TRACE(part);
    for (const bool recompute : {false, true}) {
      check(
          tiny(), recompute, [&](const std::string& key) { return key.starts_with(part); },
          /*with_context=*/false);
    }
  }
}

// LoRA with dropout on queries (rows are a picture's positions), on a caption's keys (its words)
// and on the time (samples).
TEST(UNetTest, DrawsAreOfPositionsWordsAndSamples) {
  UNet unet(tiny(), at::TensorOptions().dtype(at::kDouble));
  fill(unet.parameter_slots());
  std::vector<nn::LoraFactors> factors;
  for (const auto& site : unet.sites()) {
    if (site.name == "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q" ||
        site.name == "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k" ||
        site.name == "down_blocks.0.resnets.0.time_emb_proj") {
      const auto seed = 20 + factors.size();
      nn::LoraFactors made;
      made.a = noise({2, site.in_features()}, seed).to(at::kDouble);
      made.b = noise({site.out_features(), 2}, 10 + seed).to(at::kDouble);
      made.grad_a = at::zeros_like(made.a);
      made.grad_b = at::zeros_like(made.b);
      made.dropout = 0.5;
      made.draw = static_cast<std::uint32_t>(factors.size());
      factors.push_back(made);
      site.attach(std::make_unique<nn::LoraLinear>(made));
    }
  }
  ASSERT_EQ(factors.size(), 3U);
  const Inputs in;
  const auto grad = noise({2, 4, 6, 5}, 4).to(at::kDouble);
  const nn::SampleRows rows{{}, {3, 8}, {0, 1, 2}};
  const auto loss = [&] {
    return (unet.forward(in.latents, in.t, in.context, {}, &rows, nullptr) * grad)
        .sum()
        .item<double>();
  };
  UNetSaved saved;
  const auto y = unet.forward(in.latents, in.t, in.context, {}, &rows, &saved);
  EXPECT_FALSE(y.equal(unet.forward(in.latents, in.t, in.context, {}, nullptr, nullptr)));
  at::Tensor none;
  unet.backward(grad, in.context, &rows, saved, none);
  std::vector<nn::ParameterSlot> slots;
  for (auto& each : factors) {
    slots.push_back({{{"a", {}}}, &each.a, &each.grad_a});
    slots.push_back({{{"b", {}}}, &each.b, &each.grad_b});
  }
  expect_gradients_by_differences(slots, loss);
}

TEST(UNetTest, TimeIsEmbeddedByCosinesFirst) {
  const auto e = time_embedding(at::tensor({500.0}), 320);
  EXPECT_NEAR(e[0][0].item<double>(), -0.88384926, 1e-6);
  EXPECT_NEAR(e[0][1].item<double>(), 0.70275909, 1e-4);
  EXPECT_NEAR(e[0][160].item<double>(), -0.46777180, 1e-6);
  EXPECT_NEAR(e[0][319].item<double>(), 0.05293792, 1e-6);
}

}  // namespace
}  // namespace lorascale::models::diffusion
