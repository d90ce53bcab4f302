// Prompts of sample.prompts: a caption, perhaps with settings of its own behind it, as sd-scripts'
// users write them: "a cat --n blurry --w 512 --h 768 --d 7 --l 7.5 --s 30".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "models/diffusion/sampler.hpp"

namespace lorascale::workloads::diffusion {

struct Prompt {
  std::string caption;
  std::optional<std::string> negative;
  std::optional<std::int64_t> width, height;
  std::int64_t steps = 20;
  double guidance = 7.5;
  std::uint64_t seed = 0;
};

// The seed of the prompt with this number, unless it has one of its own, follows from run.seed.
// Error(kBadConfig) where settings behind it are none.
Prompt parse_prompt(const std::string& text, const config::RunConfig& config, std::size_t number,
                    const std::string& where);

models::diffusion::SamplerKind sampler_named(const std::string& name);

// All that makes the picture again, for people, as interfaces write it into their files.
std::string parameters_text(const Prompt& prompt, std::int64_t width, std::int64_t height,
                            const std::string& sampler, const std::string& model);

}  // namespace lorascale::workloads::diffusion
