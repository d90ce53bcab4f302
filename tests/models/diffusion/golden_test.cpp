// Models of their real sizes with published pseudo-random weights, against what sd-scripts',
// diffusers' and transformers' own modules give for them.
#include "models/golden.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include "models/diffusion/clip_text.hpp"
#include "models/diffusion/ldm_names.hpp"
#include "models/diffusion/unet.hpp"
#include "models/diffusion/vae.hpp"

namespace lorascale::models::diffusion {
namespace {

const auto kCpu = at::TensorOptions().dtype(at::kFloat);

template <class Named>
void fill_golden(const std::vector<nn::ParameterSlot>& slots, Named&& named) {
  for (const auto& slot : slots) {
    std::int64_t first = 0;
    for (const auto& part : slot.parts) {
      slot.value->narrow(0, first, part.shape[0]).copy_(golden_tensor(named(part.key), part.shape));
      first += part.shape[0];
    }
  }
}

struct Golden {
  double mean, deviation;
  std::array<double, 4> first;
  double last;
};

// Digits shown are of fp64; fp32 stays within 3.1e-6 of them on every kind of CPU tried.
void expect_golden(const at::Tensor& result, const Golden& golden) {
  constexpr double kTolerance = 5e-6;
  const at::Tensor flat = result.flatten().to(at::kDouble);
  EXPECT_NEAR(flat.mean().item<double>(), golden.mean, kTolerance);
  EXPECT_NEAR(flat.std().item<double>(), golden.deviation, kTolerance);
  for (std::int64_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(flat[i].item<double>(), golden.first[static_cast<std::size_t>(i)], kTolerance);
  }
  EXPECT_NEAR(flat[-1].item<double>(), golden.last, kTolerance);
}

std::string same(const std::string& key) {
  return key;
}

UNetConfig full_size(std::int64_t context) {
  UNetConfig config;
  config.levels = {{320, 1, 8}, {640, 1, 8}, {1280, 1, 8}, {1280, 0, 8}};
  config.context = context;
  return config;
}

void expect_unet(const UNetConfig& config, const Golden& golden,
                 std::string (*named)(const std::string&) = same) {
  if (const char* slow = std::getenv("LORASCALE_SLOW"); slow == nullptr || *slow == '\0') {
    GTEST_SKIP() << "needs up to 11 GB and a minute: scripts/test.sh --slow";
  }
  UNet unet(config, kCpu);
  fill_golden(unet.parameter_slots(), named);
  const at::Tensor added =
      config.addition > 0 ? golden_input("y", {1, config.addition}) : at::Tensor();
  expect_golden(unet.forward(golden_input("x", {1, 4, 16, 16}), at::full({1}, 500.0, at::kFloat),
                             golden_input("ctx", {1, 77, config.context}), added, nullptr, nullptr),
                golden);
}

TEST(DiffusionGoldenTest, UNetOfSd15) {
  expect_unet(full_size(768),
              {-0.00553349, 0.58638751, {-0.1081409, 0.0979847, 0.0565776, 0.1592545}, -0.4472906});
}

TEST(DiffusionGoldenTest, UNetOfSd21) {
  auto config = full_size(1024);
  for (auto& level : config.levels) {
    level.heads = level.channels / 64;
  }
  expect_unet(
      config,
      {-0.04189213, 0.57126362, {-0.1547843, -0.1973054, -0.0583410, 0.2005357}, -0.1076895});
}

TEST(DiffusionGoldenTest, UNetOfSdxl) {
  UNetConfig config;
  config.levels = {{320, 0, 5}, {640, 2, 10}, {1280, 10, 20}};
  config.middle_depth = 10;
  config.context = 2048;
  config.addition = 2816;
  // By the names of the file that it is published as.
  const auto named = [](const std::string& key) {
    return unet_name_in_ldm(key, 2, {false, true, true})
        .substr(std::string("model.diffusion_model.").size());
  };
  expect_unet(config,
              {-0.30834411, 0.52943096, {0.5787575, 0.2046357, 0.4256589, 0.5174832}, 0.0753652},
              named);
}

TEST(DiffusionGoldenTest, Autoencoder) {
  Vae vae({}, kCpu);
  fill_golden(vae.parameter_slots(), same);
  expect_golden(
      vae.encode(golden_input("img", {1, 3, 64, 64}), nullptr),
      {-0.05066591, 0.53587043, {-0.3255128, -0.8993555, -0.8677510, -0.1956727}, 0.0506205});
  expect_golden(
      vae.decode(golden_input("z", {1, 4, 8, 8}), nullptr),
      {-0.08234073, 0.60956350, {0.0327637, 0.0790628, 0.0077576, -0.0119965}, 0.1599331});
}

TEST(DiffusionGoldenTest, TextEncoder) {
  ClipTextEncoder encoder({}, kCpu);
  fill_golden(encoder.parameter_slots(), same);
  at::Tensor ids = at::full({1, 77}, 49407, at::kLong);
  const std::array<std::int64_t, 6> words = {49406, 320, 1125, 539, 320, 2368};
  for (std::int64_t i = 0; i < 6; ++i) {
    ids[0][i] = words[static_cast<std::size_t>(i)];
  }
  expect_golden(
      encoder.forward(ids, {}, nullptr, nullptr).context,
      {-0.00084388, 1.00296657, {0.7563207, 0.4853473, -0.5626671, -0.2752170}, -0.4932766});
  expect_golden(
      encoder.forward(ids, {2, true}, nullptr, nullptr).context,
      {-0.00070665, 1.00324664, {0.4419020, 0.6808055, -0.3548284, -0.3324438}, -0.5764129});
}

}  // namespace
}  // namespace lorascale::models::diffusion
