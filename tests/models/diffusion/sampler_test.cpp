// Samplers on a model that knows the one picture there is: all of them end at it, from whatever
// noise; steps and sigmas are those of diffusers' schedulers (0.42).
#include "models/diffusion/sampler.hpp"

#include <cmath>

#include "support/tensors.hpp"

namespace lorascale::models::diffusion {
namespace {

using test::expect_close;
using test::noise;

NoiseSchedule schedule(Prediction prediction, bool zero_terminal_snr = false) {
  return NoiseSchedule({.prediction = prediction, .zero_terminal_snr = zero_terminal_snr});
}

// What a perfect model of this picture tells of x at time t; `scaled`: x as the model sees it.
at::Tensor told(const NoiseSchedule& of, double t, const at::Tensor& scaled,
                const at::Tensor& picture) {
  const auto low = static_cast<std::int64_t>(t);
  const double share = t - static_cast<double>(low);
  double sigma = (1 - share) * of.sigma(low);
  if (share > 0) {
    sigma += share * of.sigma(low + 1);
  }
  const double signal = 1 / std::sqrt(sigma * sigma + 1);
  const double amount = std::isinf(sigma) ? 1 : sigma * signal;
  const at::Tensor e = (scaled - picture * signal) / amount;
  return of.settings().prediction == Prediction::kVelocity ? e * signal - picture * amount : e;
}

TEST(SamplerTest, AllEndAtTheOnlyPicture) {
  const auto picture = noise({1, 4, 3, 3}, 1).to(at::kDouble);
  for (const auto prediction : {Prediction::kEpsilon, Prediction::kVelocity}) {
    for (const auto kind :
         {SamplerKind::kDdim, SamplerKind::kEuler, SamplerKind::kEulerAncestral}) {
      for (const auto spacing : {Spacing::kLeading, Spacing::kTrailing, Spacing::kLinspace}) {
        const auto of = schedule(prediction);
        const auto sampler = make_sampler(of, {.kind = kind, .count = 8, .spacing = spacing});
        auto x = noise({1, 4, 3, 3}, 2).to(at::kDouble) * sampler->initial_scale();
        for (std::size_t i = 0; i < 8; ++i) {
          const auto model =
              told(of, sampler->timesteps()[i], x * sampler->input_scale(i), picture);
          x = sampler->step(i, x, model, noise({1, 4, 3, 3}, 3 + i).to(at::kDouble));
        }
        // DDIM ends at the schedule's first step, not at the picture itself, and takes the way from
        // one time to the next for steps / count, which it is not where times are linspaced.
        const bool ddim = kind == SamplerKind::kDdim;
        const double away = spacing == Spacing::kLinspace ? 0.25 : 3.5 * of.noise(0);
        const auto left = ddim ? x - picture * of.signal(0) : x - picture;
        EXPECT_LT(left.abs().max().item<double>(), ddim ? away : 1e-12)
            << int(kind) << " " << int(spacing);
      }
    }
  }
}

TEST(SamplerTest, DpmPlusPlusEndsNearTheOnlyPicture) {
  const auto picture = noise({1, 4, 3, 3}, 1).to(at::kDouble);
  for (const auto prediction : {Prediction::kEpsilon, Prediction::kVelocity}) {
    const auto of = schedule(prediction);
    const auto sampler = make_sampler(of, {.kind = SamplerKind::kDpmPp2mKarras, .count = 20});
    auto x = noise({1, 4, 3, 3}, 2).to(at::kDouble) * sampler->initial_scale();
    for (std::size_t i = 0; i < 20; ++i) {
      const auto model = told(of, sampler->timesteps()[i], x * sampler->input_scale(i), picture);
      x = sampler->step(i, x, model, {});
    }
    // The model is asked at whole steps, beside the sampler's sigmas.
    EXPECT_LT((x - picture).abs().max().item<double>(), 0.05);
  }
}

TEST(SamplerTest, AsksWhereDiffusersAsks) {
  const auto of = schedule(Prediction::kEpsilon);
  const auto times = [&](SamplerKind kind, std::int64_t count, Spacing spacing) {
    return make_sampler(of, {.kind = kind, .count = count, .spacing = spacing})->timesteps();
  };
  const auto leading = times(SamplerKind::kDdim, 20, Spacing::kLeading);
  EXPECT_EQ(leading.front(), 951);
  EXPECT_EQ(leading[1], 901);
  EXPECT_EQ(leading.back(), 1);
  EXPECT_EQ(times(SamplerKind::kDdim, 7, Spacing::kTrailing),
            (std::vector<double>{999, 856, 713, 570, 428, 285, 142}));
  EXPECT_EQ(times(SamplerKind::kDdim, 20, Spacing::kTrailing)[1], 949);
  EXPECT_EQ(times(SamplerKind::kDdim, 20, Spacing::kLinspace)[1], 946);
  EXPECT_NEAR(times(SamplerKind::kEuler, 20, Spacing::kLinspace)[1], 946.421, 1e-3);
  EXPECT_EQ(times(SamplerKind::kDdim, 1000, Spacing::kLeading).front(), 999);
  const auto euler = make_sampler(of, {.kind = SamplerKind::kEuler, .spacing = Spacing::kLeading});
  EXPECT_NEAR(euler->initial_scale(), std::sqrt(11.028335 * 11.028335 + 1), 1e-4);
  EXPECT_NEAR(euler->input_scale(1), 1 / std::sqrt(8.390687 * 8.390687 + 1), 1e-6);
  const auto linspace =
      make_sampler(of, {.kind = SamplerKind::kEuler, .spacing = Spacing::kLinspace});
  EXPECT_NEAR(linspace->initial_scale(), 14.614645, 1e-4);
  const auto karras = make_sampler(of, {.kind = SamplerKind::kDpmPp2mKarras, .count = 10});
  EXPECT_NEAR(karras->input_scale(1), 1 / std::sqrt(9.102936 * 9.102936 + 1), 1e-6);
}

TEST(SamplerTest, BeginsWithoutAnySignal) {
  const auto of = schedule(Prediction::kVelocity, true);
  const auto euler = make_sampler(of, {.kind = SamplerKind::kEuler, .spacing = Spacing::kTrailing});
  EXPECT_NEAR(euler->initial_scale(), 4096, 1e-3);
  const auto ddim = make_sampler(of, {.spacing = Spacing::kTrailing});
  const auto x = noise({1, 4, 2, 2}, 1).to(at::kDouble), v = noise({1, 4, 2, 2}, 2).to(at::kDouble);
  // At the last step the picture is minus the velocity.
  const auto y = ddim->step(0, x, v, {});
  expect_close(y, x * of.noise(949) - v * of.signal(949), 1e-12);
}

}  // namespace
}  // namespace lorascale::models::diffusion
