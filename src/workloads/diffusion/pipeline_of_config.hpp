// Settings of a configuration as pipeline, data set and adapter take them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "data/pictures/picture_dataset.hpp"
#include "models/diffusion/diffusion_model.hpp"

namespace lorascale::workloads::diffusion {

models::diffusion::PipelineSource source_of(const config::ModelSection& model);
models::diffusion::DiffusionSettings settings_of(const config::RunConfig& config);
// The part of it that trains, as a model.
std::unique_ptr<models::diffusion::PipelineModel> model_of(
    const config::RunConfig& config, std::unique_ptr<models::diffusion::Pipeline> pipeline);
data::CaptionRows rows_of(const config::RunConfig& config,
                          const models::diffusion::PipelineConfig& pipeline);
data::PictureSettings pictures_of(const config::RunConfig& config,
                                  const models::diffusion::PipelineConfig& pipeline, bool training);

}  // namespace lorascale::workloads::diffusion
