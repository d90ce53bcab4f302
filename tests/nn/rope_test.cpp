// Rotary embedding against published frequencies, closed forms in fp64 and a rotation written out.
#include "nn/rope.hpp"

#include <numbers>
#include <numeric>

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::autograd_of;
using test::expect_close;
using test::leaf64;
using test::noise;
using test::same_bits;

RopeParameters parameters(RopeType type, double theta, std::int64_t dim, double factor = 1.0,
                          double original_context = 0.0) {
  RopeParameters p;
  p.type = type;
  p.theta = theta;
  p.dim = dim;
  p.factor = factor;
  p.original_context = original_context;
  return p;
}

void expect_inverse(const RopeFrequencies& frequencies, const std::map<int, double>& expected) {
  for (const auto& [index, value] : expected) {
    EXPECT_NEAR(frequencies.inverse[index].item<float>() / value, 1.0, 1e-6) << "index " << index;
  }
}

TEST(RopeFrequenciesTest, DefaultAndLinearFollowTheClosedForm) {
  for (const std::int64_t dim : {2, 6, 16, 128}) {
    const auto base = rope_frequencies(parameters(RopeType::kDefault, 5e5, dim));
    const auto linear = rope_frequencies(parameters(RopeType::kLinear, 5e5, dim, 4.0));
    ASSERT_EQ(base.inverse.size(0), dim / 2);
    EXPECT_EQ(base.inverse[0].item<float>(), 1.0F);
    for (int j = 0; j < dim / 2; ++j) {
      const double exact = std::pow(5e5, -2.0 * j / static_cast<double>(dim));
      EXPECT_NEAR(base.inverse[j].item<float>() / exact, 1.0, 2e-6);
      EXPECT_EQ(linear.inverse[j].item<float>(), base.inverse[j].item<float>() / 4.0F);
    }
    EXPECT_EQ(base.attention_factor, 1.0F);
    EXPECT_EQ(linear.attention_factor, 1.0F);
  }
}

TEST(RopeFrequenciesTest, Llama31AsPublished) {
  auto p = parameters(RopeType::kLlama3, 5e5, 128, 8.0, 8192);
  p.low_freq_factor = 1.0;
  p.high_freq_factor = 4.0;
  expect_inverse(rope_frequencies(p), {{28, 0.00321144611},
                                       {30, 0.00137189368},
                                       {32, 0.000524846022},
                                       {34, 0.000178507791},
                                       {36, 7.78465546e-05},
                                       {63, 3.06892588e-07}});
}

TEST(RopeFrequenciesTest, Llama32AsPublished) {
  auto p = parameters(RopeType::kLlama3, 5e5, 64, 32.0, 8192);
  p.low_freq_factor = 1.0;
  p.high_freq_factor = 4.0;
  expect_inverse(
      rope_frequencies(p),
      {{14, 0.00321144611}, {15, 0.00129054801}, {16, 0.000429556705}, {17, 9.70828623e-05}});
}

// Short wavelengths are kept, long ones divided by the factor, those between lie between.
TEST(RopeFrequenciesTest, Llama3LeavesShortWavelengthsAlone) {
  auto p = parameters(RopeType::kLlama3, 5e5, 64, 8.0, 64);
  p.low_freq_factor = 1.0;
  p.high_freq_factor = 4.0;
  const auto scaled = rope_frequencies(p);
  p.type = RopeType::kDefault;
  const auto base = rope_frequencies(p);
  int kept = 0, blended = 0, stretched = 0;
  for (int j = 0; j < 32; ++j) {
    const double was = base.inverse[j].item<float>();
    const double is = scaled.inverse[j].item<float>();
    const double wavelength = 2.0 * std::numbers::pi / was;
    if (wavelength < 64.0 / 4.0) {
      EXPECT_EQ(is, was);
      ++kept;
    } else if (wavelength > 64.0) {
      EXPECT_NEAR(is, was / 8.0, 1e-7 * was);
      ++stretched;
    } else {
      EXPECT_LT(is, was);
      EXPECT_GT(is, was / 8.0);
      ++blended;
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(blended, 0);
  EXPECT_GT(stretched, 0);
}

TEST(RopeFrequenciesTest, YarnAsPublished) {
  const auto p = parameters(RopeType::kYarn, 1e6, 128, 4.0, 32768);
  const auto frequencies = rope_frequencies(p);
  EXPECT_NEAR(frequencies.attention_factor, 1.13862944, 1e-7);
  expect_inverse(
      frequencies,
      {{23, 0.00697830599}, {24, 0.00537532149}, {30, 0.00106436096}, {41, 3.58253164e-05}});
  // Up to `low` nothing changes, from `high` on everything is interpolated.
  const auto base = rope_frequencies(parameters(RopeType::kDefault, 1e6, 128));
  for (int j = 0; j < 64; ++j) {
    const float was = base.inverse[j].item<float>();
    const float is = frequencies.inverse[j].item<float>();
    if (j <= 23) {
      EXPECT_EQ(is, was);
    } else if (j >= 40) {
      EXPECT_NEAR(is / was, 0.25, 1e-6);
    } else {
      EXPECT_GT(is, 0.25F * was);
      EXPECT_LT(is, was);
    }
  }
}

TEST(RopeFrequenciesTest, YarnWithoutRoundedBounds) {
  auto p = parameters(RopeType::kYarn, 1e4, 32, 8.0, 4096);
  p.truncate = false;
  p.beta_fast = 24;
  p.beta_slow = 2;
  const auto bound = [&](double rotations) {
    return 32.0 * std::log(4096.0 / (rotations * 2.0 * std::numbers::pi)) / (2.0 * std::log(1e4));
  };
  const double low = bound(24), high = bound(2);
  ASSERT_GT(low, 0);
  ASSERT_LT(high, 31);
  const auto frequencies = rope_frequencies(p);
  for (int j = 0; j < 16; ++j) {
    const double inverse = std::pow(1e4, -2.0 * j / 32.0);
    const double ramp = std::clamp((j - low) / (high - low), 0.0, 1.0);
    EXPECT_NEAR(frequencies.inverse[j].item<float>() / (inverse / 8 * ramp + inverse * (1 - ramp)),
                1.0, 2e-6);
  }
}

TEST(RopeFrequenciesTest, YarnAttentionFactor) {
  const auto factor_of = [](auto change) {
    auto p = parameters(RopeType::kYarn, 1e4, 64, 4.0, 2048);
    change(p);
    return double{rope_frequencies(p).attention_factor};
  };
  const double plain = 0.1 * std::log(4.0) + 1.0;
  EXPECT_NEAR(factor_of([](auto&) {}), plain, 1e-6);
  EXPECT_NEAR(factor_of([](auto& p) { p.attention_factor = 0.75; }), 0.75, 1e-6);
  EXPECT_NEAR(factor_of([](auto& p) { p.mscale = 0.5; }), plain, 1e-6);  // one alone has no effect
  EXPECT_NEAR(factor_of([](auto& p) {
                p.mscale = 0.5;
                p.mscale_all_dim = 2.0;
              }),
              (0.05 * std::log(4.0) + 1.0) / (0.2 * std::log(4.0) + 1.0), 1e-6);
  EXPECT_NEAR(factor_of([](auto& p) {
                p.mscale = 0.0;
                p.mscale_all_dim = 2.0;
              }),
              plain, 1e-6);
  EXPECT_NEAR(factor_of([](auto& p) { p.factor = 1.0; }), 1.0, 1e-6);
}

TEST(RopeTest, PublishedExample) {
  const auto frequencies = rope_frequencies(parameters(RopeType::kDefault, 1e4, 8));
  const std::vector<std::int32_t> positions = {3};
  auto x = at::arange(1, 9, at::kFloat).view({1, 8});
  apply_rope(x, 1, rope_tables(frequencies, positions, at::kCPU), false);
  expect_close(x,
               at::tensor({-1.6955925, 0.1375517, 2.7886815, 3.9759822, -4.8088427, 6.3230596,
                           7.0868368, 8.0119638})
                   .view({1, 8}),
               1e-6);
}

// The rotation of Hugging Face checkpoints: x * cos + rotate_half(x) * sin.
at::Tensor formula(const at::Tensor& x, std::int64_t heads, const RopeFrequencies& frequencies,
                   const std::vector<std::int32_t>& positions) {
  const auto dim = 2 * frequencies.inverse.size(0);
  const auto tokens = x.size(0);
  const auto angle = at::outer(
      at::tensor(at::IntArrayRef(std::vector<std::int64_t>(positions.begin(), positions.end())))
          .to(at::kDouble),
      frequencies.inverse.to(at::kDouble));
  const auto both = at::cat({angle, angle}, 1).unsqueeze(1);  // [tokens, 1, dim]
  const auto parts = x.narrow(1, 0, heads * dim).view({tokens, heads, dim});
  const auto turned = at::cat({-parts.narrow(2, dim / 2, dim / 2), parts.narrow(2, 0, dim / 2)}, 2);
  const auto rotated =
      (parts * both.cos() + turned * both.sin()) * double{frequencies.attention_factor};
  return at::cat(
      {rotated.reshape({tokens, heads * dim}), x.narrow(1, heads * dim, x.size(1) - heads * dim)},
      1);
}

TEST(RopeTest, RotatesTheFirstHeadsAndNothingElse) {
  const std::vector<std::int32_t> positions = {0, 1, 2, 0, 1, 511, 7};
  for (const std::int64_t dim : {2, 6, 34}) {
    for (const auto type : {RopeType::kDefault, RopeType::kYarn}) {
      const auto frequencies = rope_frequencies(parameters(type, 1e4, dim, 4.0, 64));
      const auto tables = rope_tables(frequencies, positions, at::kCPU);
      auto x = noise({7, 3 * dim + 5}, 1);
      const auto before = x.clone();
      const auto x64 = leaf64(x);
      const auto expected = formula(x64, 3, frequencies, positions);
      apply_rope(x, 3, tables, false);
      // Angles are products in fp32, as the reference forms them: 511 * 2^-24.
      expect_close(x, expected, 4e-5);
      EXPECT_TRUE(same_bits(x.narrow(1, 3 * dim, 5), before.narrow(1, 3 * dim, 5)));

      // The backward is the rotation by the opposite angle.
      auto grad = noise({7, 3 * dim + 5}, 2);
      const auto expected_grad = autograd_of(expected, grad, {x64});
      apply_rope(grad, 3, tables, true);
      expect_close(grad, expected_grad[0], 4e-5);
      if (type == RopeType::kDefault) {
        apply_rope(x, 3, tables, true);
        expect_close(x, before, 1e-6);
      }
    }
  }
}

TEST(RopeTest, NoTokensAtAll) {
  const auto frequencies = rope_frequencies(parameters(RopeType::kDefault, 1e4, 4));
  auto x = at::empty({0, 8});
  apply_rope(x, 2, rope_tables(frequencies, {}, at::kCPU), false);
  EXPECT_EQ(x.size(0), 0);
}

TEST(RopeTest, WorksOnViewsAndInSixteenBit) {
  const std::vector<std::int32_t> positions = {0, 5, 9};
  const auto frequencies = rope_frequencies(parameters(RopeType::kDefault, 1e4, 8));
  const auto tables = rope_tables(frequencies, positions, at::kCPU);
  auto plain = noise({3, 16}, 1);
  const auto start = plain.clone();
  apply_rope(plain, 2, tables, false);

  auto wide = at::zeros({3, 30});
  auto view = wide.narrow(1, 7, 16);
  view.copy_(start);
  apply_rope(view, 2, tables, false);
  EXPECT_TRUE(same_bits(wide.narrow(1, 7, 16), plain));
  EXPECT_EQ(wide.narrow(1, 0, 7).abs().sum().item<float>(), 0.0F);

  auto across = start.t().contiguous().t();  // neighbouring elements are not adjacent in memory
  apply_rope(across, 2, tables, false);
  expect_close(across, plain, 1e-6);

  auto rounded = start.to(at::kBFloat16);
  apply_rope(rounded, 2, tables, false);
  expect_close(rounded, plain, 2e-2);
}

}  // namespace
}  // namespace lorascale::nn
