// Latents and captions' contexts, computed once and kept on disk from run to run.
#pragma once

#include <functional>
#include <vector>

#include "config/run_config.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "models/diffusion/diffusion_model.hpp"
#include "workloads/workload.hpp"

namespace lorascale::workloads::diffusion {

// Opens what the configuration lets be kept: latents where neither crop nor colours are by chance,
// contexts where no text encoder trains. A folder that cannot be written is a warning: nothing is
// kept then.
void open_caches(const models::diffusion::DiffusionModel& model, const config::RunConfig& config);

// This rank's share of all that may be asked for of these data sets; ranks do not wait for each
// other. Pictures as they are, captions whole.
CacheReport fill_caches(const models::diffusion::DiffusionModel& model,
                        const std::vector<const data::PictureDataset*>& data,
                        const CacheShare& share);

}  // namespace lorascale::workloads::diffusion
