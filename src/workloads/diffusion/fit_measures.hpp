// Over-fitting as users of pictures know it, measured: what a trained model makes beside what its
// base makes of the same noise. Latents are enough, of few steps. Deterministic.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "coordinator/measure.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "models/diffusion/picture_maker.hpp"

namespace lorascale::workloads::diffusion {

// Of one prompt, at one seed after the other. fp32 on the CPU.
using Latents = std::vector<at::Tensor>;
Latents latents_at_seeds(const models::diffusion::DiffusionModel& model,
                         models::diffusion::PictureRequest request);

struct Compared {
  Latents base, now;
};
// Mean distance of two pictures now over that of the base's; nothing where the base's are alike.
std::optional<double> distance_ratio(const Compared& pictures);
// Mean change of the one over that of the other; nothing where the other hardly changed.
std::optional<double> change_ratio(const Compared& without, const Compared& with);

// Mean loss of some pictures for regularisation, at noise and times that are always the same;
// nothing where the data has none, or they do not count.
std::optional<double> prior_loss(models::Model& model, const data::PictureDataset& data,
                                 std::uint64_t seed);

}  // namespace lorascale::workloads::diffusion
