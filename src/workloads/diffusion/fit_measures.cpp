#include "workloads/diffusion/fit_measures.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>

#include "base/heartbeat.hpp"

namespace lorascale::workloads::diffusion {
namespace {

constexpr std::uint64_t kSeeds = 3;
constexpr std::int64_t kMostSteps = 10;  // differences show long before a picture is fine
constexpr double kHardly = 0.02;         // of the latents themselves
constexpr std::int64_t kPriorPictures = 8;

double norm_of(const at::Tensor& values) {
  return values.norm().item<double>();
}

double pair_distance(const Latents& latents) {
  double sum = 0;
  for (std::size_t i = 0; i < latents.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      sum += norm_of(latents[i] - latents[j]);
    }
  }
  return sum;
}

// Over the size of what changed.
double change_of(const Compared& pictures) {
  double change = 0, size = 0;
  for (std::size_t i = 0; i < pictures.base.size(); ++i) {
    change += norm_of(pictures.now[i] - pictures.base[i]);
    size += norm_of(pictures.base[i]);
  }
  return size > 0 ? change / size : 0;
}

}  // namespace

Latents latents_at_seeds(const models::diffusion::DiffusionModel& model,
                         models::diffusion::PictureRequest request) {
  request.steps = std::min(request.steps, kMostSteps);
  Latents latents;
  for (std::uint64_t i = 0; i < kSeeds; ++i, ++request.seed) {
    latents.push_back(models::diffusion::make_latents(model, request).cpu());
  }
  return latents;
}

std::optional<double> distance_ratio(const Compared& pictures) {
  const double base = pair_distance(pictures.base);
  return base > 0 ? std::optional(pair_distance(pictures.now) / base) : std::nullopt;
}

std::optional<double> change_ratio(const Compared& without, const Compared& with) {
  const double wanted = change_of(with);
  return wanted > kHardly ? std::optional(change_of(without) / wanted) : std::nullopt;
}

std::optional<double> prior_loss(models::Model& model, const data::PictureDataset& data,
                                 std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  double loss = 0;
  std::int64_t row = 0, pictures = 0;
  for (std::int64_t i = 0; i < data.file().images() && pictures < kPriorPictures; ++i) {
    if (data.file().regularisation(i)) {
      beat("looking at pictures for regularisation");
      // One at a time: what fits in training does here.
      const auto leaf = data.leaf({seed, 0}, std::array{row});
      loss += model.evaluate(*leaf).loss_sum.item<double>();
      ++pictures;
    }
    row += data.settings().use_repeats ? data.file().repeats(i) : 1;
  }
  return pictures > 0 && loss > 0 ? std::optional(loss / static_cast<double>(pictures))
                                  : std::nullopt;
}

}  // namespace lorascale::workloads::diffusion
