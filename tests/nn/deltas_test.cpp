// Several deltas on one output, one after another, against the same written out in fp64 and
// autograd.
#include "nn/deltas.hpp"

#include "nn/lora_linear.hpp"
#include "scaling.hpp"
#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

LoraFactors factors(std::uint64_t seed) {
  LoraFactors lora;
  lora.scale = 0.75;
  lora.a = noise({2, 7}, seed);
  lora.b = noise({4, 2}, seed + 1);
  lora.grad_a = at::zeros({2, 7});
  lora.grad_b = at::zeros({4, 2});
  return lora;
}

// LoRA, scaled, LoRA again, scaled again on channels 3 to 6 of 9; a scaling of channels 0 to 2.
TEST(DeltasTest, EachChangesWhatTheOneBeforeMade) {
  const auto x = noise({8, 7}, 1), base = noise({8, 9}, 2), dy = noise({8, 9}, 3);
  const std::vector<at::Tensor> l = {noise({4}, 4), noise({4}, 5), noise({3}, 6)};
  const std::vector<at::Tensor> grad = {at::zeros({4}), at::zeros({4}), at::zeros({3})};
  const std::vector<LoraFactors> lora = {factors(7), factors(9)};
  Deltas deltas;
  deltas.attach(3, 4, std::make_unique<LoraLinear>(lora[0]));
  deltas.attach(3, 4, std::make_unique<Scaling>(l[0], grad[0]));
  deltas.attach(0, 3, std::make_unique<Scaling>(l[2], grad[2]));
  deltas.attach(3, 4, std::make_unique<LoraLinear>(lora[1]));
  deltas.attach(3, 4, std::make_unique<Scaling>(l[1], grad[1]));
  EXPECT_EQ(deltas.size(), 5U);
  EXPECT_EQ(deltas.kept_width(), 2 + 4 + 3 + 2 + 4);

  const auto x64 = leaf64(x), base64 = leaf64(base);
  const std::vector<at::Tensor> l64 = {leaf64(l[0]), leaf64(l[1]), leaf64(l[2])};
  std::vector<at::Tensor> inputs = {x64, base64, l64[0], l64[1], l64[2]};
  auto middle = base64.narrow(1, 3, 4);
  for (std::size_t i = 0; i < 2; ++i) {
    const auto& a = inputs.emplace_back(leaf64(lora[i].a));
    const auto low_rank = at::matmul(x64, a.t());
    const auto& b = inputs.emplace_back(leaf64(lora[i].b));
    middle = (middle + 0.75 * at::matmul(low_rank, b.t())) * (l64[i] + 1);
  }
  const auto expected_y =
      at::cat({base64.narrow(1, 0, 3) * (l64[2] + 1), middle, base64.narrow(1, 7, 2)}, 1);
  const auto expected = autograd_of(expected_y, dy, inputs);

  DeltasSaved saved;
  auto y = base.clone(), dx = at::zeros({8, 7});
  deltas.forward(x, y, nullptr, &saved);
  expect_close(y, expected_y, 1e-5, "y");
  const auto dy_before = dy.clone();
  const auto gradients = deltas.output_gradients(dy, saved);
  deltas.backward(gradients, x, nullptr, saved, dx);
  EXPECT_TRUE(same_bits(dy, dy_before));
  expect_close(dx, expected[0], 1e-5, "dx");
  expect_close(gradients.of_layer, expected[1], 1e-5, "dy of the layer");
  for (std::size_t i = 0; i < 3; ++i) {
    expect_close(grad[i], expected[2 + i], 1e-5, "l");
  }
  for (std::size_t i = 0; i < 2; ++i) {
    expect_close(lora[i].grad_a, expected[5 + 2 * i], 1e-5, "A");
    expect_close(lora[i].grad_b, expected[6 + 2 * i], 1e-5, "B");
  }
}

TEST(DeltasTest, NoneLeaveTheGradientAsItIs) {
  const Deltas deltas;
  EXPECT_TRUE(deltas.empty());
  const auto dy = noise({8, 9}, 3);
  EXPECT_TRUE(deltas.output_gradients(dy, {}).of_layer.is_same(dy));
}

}  // namespace
}  // namespace lorascale::nn
