// A base model with as much of an adapter in its weights as is asked for.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "data/pictures/caption_rows.hpp"
#include "models/diffusion/pipeline.hpp"

namespace lorascale::workloads::diffusion {

// What an adapter made of the model.
struct Adapted {
  std::string parameters;                  // what it was, for the picture's
  std::vector<data::WordForm> new_word{};  // that prompts may have
};

// Takes the file, or what is in a folder of results; nothing where there is no adapter of a known
// form. The pipeline is the base itself: a DoRA at half its strength is not half of one that was
// added.
std::optional<Adapted> add_adapter(models::diffusion::Pipeline& pipeline,
                                   const config::RunConfig& config,
                                   const std::filesystem::path& path, double strength);

}  // namespace lorascale::workloads::diffusion
