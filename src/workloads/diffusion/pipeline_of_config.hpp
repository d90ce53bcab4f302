// Settings of a configuration as pipeline, data set and adapter take them.
#pragma once

#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "models/diffusion/diffusion_model.hpp"

namespace lorascale::workloads::diffusion {

models::diffusion::PipelineSource source_of(const config::ModelSection& model);
models::diffusion::DiffusionSettings settings_of(const config::RunConfig& config);
data::CaptionRows rows_of(const config::RunConfig& config,
                          const models::diffusion::PipelineConfig& pipeline);
data::PictureSettings pictures_of(const config::RunConfig& config,
                                  const models::diffusion::PipelineConfig& pipeline, bool training);

}  // namespace lorascale::workloads::diffusion
