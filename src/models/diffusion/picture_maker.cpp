#include "models/diffusion/picture_maker.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "models/diffusion/draws.hpp"

namespace lorascale::models::diffusion {
namespace {

// What is steered away from, then what is wanted: [2, ...]; without guidance the latter alone.
Context contexts_of(const DiffusionModel& model, const PictureRequest& request) {
  const auto wanted = model.contexts().forward(request.prompt, nullptr, nullptr);
  if (request.guidance == 1) {
    return wanted;
  }
  Context away;
  if (!request.negative.defined() && model.pipeline().config().zeros_for_empty) {
    away.words = at::zeros_like(wanted.words);
    away.pooled = wanted.pooled.defined() ? at::zeros_like(wanted.pooled) : at::Tensor();
  } else {
    const auto& ids = request.negative.defined() ? request.negative : request.empty;
    away = model.contexts().forward(ids, nullptr, nullptr);
  }
  return {at::cat({away.words, wanted.words}),
          wanted.pooled.defined() ? at::cat({away.pooled, wanted.pooled}) : at::Tensor()};
}

}  // namespace

at::Tensor make_latents(const DiffusionModel& model, const PictureRequest& request) {
  const at::NoGradGuard no_grad;
  const auto& config = model.pipeline().config();
  const auto factor = config.vae.factor();
  LS_ASSERT(request.height % factor == 0 && request.width % factor == 0);
  const auto sampler = make_sampler(
      model.schedule(), {request.sampler, request.steps, config.spacing, config.spacing_offset});
  const SampleKey key{request.seed, 0};
  const std::vector<std::int64_t> shape = {config.vae.latent_channels, request.height / factor,
                                           request.width / factor};
  const auto noise = [&](Draw draw, std::size_t round) {
    return draw_normal(key, {0}, draw, shape, static_cast<std::uint32_t>(round)).to(model.device());
  };
  const auto context = contexts_of(model, request);
  const auto copies = context.words.size(0);
  const auto side = [](std::int64_t value) { return static_cast<float>(value); };
  const at::Tensor sizes = at::tensor({side(request.height), side(request.width), 0.0F, 0.0F,
                                       side(request.height), side(request.width)})
                               .repeat({copies, 1})
                               .to(model.device());
  const at::Tensor added = model.added(context.pooled, sizes);
  at::Tensor x = noise(Draw::kNoise, 0) * sampler->initial_scale();
  for (std::size_t i = 0; i < sampler->timesteps().size(); ++i) {
    beat("making a picture");
    const at::Tensor t = at::full({copies}, sampler->timesteps()[i], at::kFloat).to(model.device());
    const at::Tensor seen = (x * sampler->input_scale(i)).repeat({copies, 1, 1, 1});
    const at::Tensor told = model.pipeline()
                                .unet()
                                .forward(seen, t, context.words, added, nullptr, nullptr)
                                .to(at::kFloat);
    const at::Tensor prediction =
        copies == 1 ? told
                    : told.narrow(0, 0, 1) +
                          (told.narrow(0, 1, 1) - told.narrow(0, 0, 1)) * request.guidance;
    x = sampler->step(i, x, prediction,
                      sampler->draws() ? noise(Draw::kPerturbation, i + 1) : at::Tensor());
  }
  return x;
}

at::Tensor make_picture(const DiffusionModel& model, const PictureRequest& request) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = make_latents(model, request);
  beat("making a picture");
  const auto& vae = model.pipeline().vae();
  const at::Tensor decoded =
      vae.decode((x / vae.config().scaling_factor).to(vae.dtype()), nullptr).to(at::kFloat);
  return ((decoded[0] + 1) * 127.5)
      .clamp(0, 255)
      .round()
      .permute({1, 2, 0})
      .to(at::kByte)
      .cpu()
      .contiguous();
}

}  // namespace lorascale::models::diffusion
