// Gradients of a tiny autoencoder against autograd through its own forward.
#include "models/diffusion/vae.hpp"

#include <ATen/core/grad_mode.h>

#include <cmath>

#include "slots.hpp"

namespace lorascale::models::diffusion {
namespace {

using test::noise;

template <class Of>
void check(bool encodes, Of&& of) {
  const VaeConfig config{.channels = {8, 12}, .layers_per_level = 1, .groups = 4};
  Vae vae(config, at::TensorOptions().dtype(at::kDouble));
  const auto slots = vae.parameter_slots();
  fill(slots);
  const auto x = (encodes ? noise({2, 3, 8, 6}, 1) : noise({2, 4, 4, 3}, 1)).to(at::kDouble);
  const auto grad = (encodes ? noise({2, 8, 4, 3}, 2) : noise({2, 3, 8, 6}, 2)).to(at::kDouble);
  const auto run = [&](std::vector<VaeChain::PartSaved>* saved) {
    return encodes ? vae.encode(x, saved) : vae.decode(x, saved);
  };
  follow(slots, true);
  const auto expected = run(nullptr);
  const auto side = encodes ? "encoder." : "decoder.";
  train(slots, [&](const std::string& key) {
    return (key.starts_with(side) || key.starts_with(encodes ? "quant" : "post_quant")) && of(key);
  });
  {
    const at::AutoGradMode no_grad(false);
    std::vector<VaeChain::PartSaved> saved;
    test::expect_close(run(&saved), expected, 1e-12, "output");
    (encodes ? vae.encoder() : vae.decoder()).backward(grad, saved, /*need_dx=*/false);
  }
  expect_gradients(slots, expected, grad);
}

TEST(VaeTest, EveryGradient) {
  for (const bool encodes : {true, false}) {
    check(encodes, [](const std::string&) { return true; });
  }
}

TEST(VaeTest, StopsAtTheFirstPartThatTrains) {
  for (const auto* part : {"conv_norm_out", "mid_block.attentions.0.to_q",
                           "blocks.0.resnets.0.conv1", "samplers.0.conv", "conv_shortcut"}) {
    for (const bool encodes : {true, false}) {
      check(encodes, [&](const std::string& key) { return key.find(part) != key.npos; });
    }
  }
}

}  // namespace
}  // namespace lorascale::models::diffusion
