#include "config/options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "config/option_adding.hpp"

namespace lorascale::config {
namespace {

// What belongs to one kind of workload, by the beginnings of paths.
struct Domain {
  std::string_view prefix;
  std::string_view name;
};
// What a network that begins untrained is made of.
constexpr std::string_view kFreshArchitecture = "model.resnet.";
constexpr std::array kDomains = {
    Domain{"model.recompute", "language and diffusion"},
    Domain{"model.architecture", "vision"},
    Domain{kFreshArchitecture, "vision"},
    Domain{"model.part", "diffusion"},
    Domain{"model.vae", "diffusion"},
    Domain{"model.prediction", "diffusion"},
    Domain{"model.clip_skip", "diffusion"},
    Domain{"data.prepare.", "language"},
    Domain{"adapter.token.", "diffusion"},
    Domain{"data.augment.color_jitter", "diffusion"},
    Domain{"data.augment.flip", "vision and diffusion"},
    Domain{"data.augment.shift", "vision"},
    Domain{"data.augment.crop", "diffusion"},
    Domain{"data.caption.", "diffusion"},
    Domain{"data.masked", "diffusion"},
    Domain{"data.cache.", "diffusion"},
    Domain{"data.sequence_length", "language"},
    Domain{"data.packing", "language"},
    Domain{"loss.label_smoothing", "language and vision"},
    Domain{"loss.min_snr_gamma", "diffusion"},
    Domain{"loss.debiased", "diffusion"},
    Domain{"loss.scale_v_like_noise", "diffusion"},
    Domain{"loss.noise_offset", "diffusion"},
    Domain{"loss.input_perturbation", "diffusion"},
    Domain{"loss.zero_terminal_snr", "diffusion"},
    Domain{"loss.prior_weight", "diffusion"},
    Domain{"loss.kl", "diffusion"},
    Domain{"model.tokenizer", "diffusion"},
    Domain{"sample.every", "language and diffusion"},
    Domain{"sample.prompts", "language and diffusion"},
    Domain{"sample.max_tokens", "language"},
    Domain{"sample.temperature", "language"},
    Domain{"sample.top_p", "language"},
    Domain{"sample.negative", "diffusion"},
    Domain{"sample.width", "diffusion"},
    Domain{"sample.height", "diffusion"},
    Domain{"sample.steps", "diffusion"},
    Domain{"sample.guidance", "diffusion"},
    Domain{"sample.sampler", "diffusion"},
    Domain{"sample.strengths", "diffusion"},
};

void set_domains(std::vector<Option>& table) {
  for (auto& option : table) {
    for (const auto& [prefix, name] : kDomains) {
      if (option.path.starts_with(prefix)) {
        option.domain = name;
      }
    }
  }
}

std::vector<Option> build_table() {
  std::vector<Option> table;
  add_options_of_model_and_data(table);
  add_options_of_training(table);
  set_domains(table);
  return table;
}

}  // namespace

bool means_something(const Option& option, std::string_view domain) {
  return option.domain.empty() || option.domain.find(domain) != std::string_view::npos;
}

std::vector<std::string> idle_options(const RunConfig& config, std::string_view domain) {
  const RunConfig defaults;
  std::vector<std::string> lines;
  for (const auto& option : options()) {
    std::string why;
    if (!means_something(option, domain)) {
      why = fmt::format("it is of {} models", option.domain);
    } else if (!config.model.architecture && option.path.starts_with(kFreshArchitecture)) {
      why = fmt::format("the form of {} is in its config.json", config.model.path);
    }
    if (!why.empty() && option.write(config) != option.write(defaults)) {
      lines.push_back(
          fmt::format("{} {} has no effect: {}", option.path, option.write(config), why));
    }
  }
  return lines;
}

const std::vector<Option>& options() {
  static const std::vector<Option> table = build_table();
  return table;
}

const Option* find_option(std::string_view path) {
  const auto& table = options();
  const auto found = std::find_if(table.begin(), table.end(),
                                  [&](const Option& option) { return option.path == path; });
  return found == table.end() ? nullptr : &*found;
}

std::vector<const Option*> options_of_section(std::string_view path) {
  const std::string prefix = std::string(path) + ".";
  std::vector<const Option*> found;
  for (const auto& option : options()) {
    if (option.path.starts_with(prefix)) {
      found.push_back(&option);
    }
  }
  return found;
}

bool is_section(std::string_view path) {
  return !options_of_section(path).empty();
}

std::string default_text(const Option& option) {
  return option.write(RunConfig{});
}

}  // namespace lorascale::config
