#include "workloads/diffusion/prompts.hpp"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>

#include "base/error.hpp"

namespace lorascale::workloads::diffusion {
namespace {

using models::diffusion::SamplerKind;

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t");
  const auto last = text.find_last_not_of(" \t");
  return first == std::string::npos ? std::string() : text.substr(first, last - first + 1);
}

template <class Number>
Number number_of(const std::string& where, const std::string& text, const std::string& setting,
                 Number least, Number most) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() ||
      !(value >= least && value <= most)) {
    throw_bad_config(fmt::format("{}: --{} takes a number from {} to {}, not '{}'", where, setting,
                                 least, most, text));
  }
  return value;
}

}  // namespace

SamplerKind sampler_named(const std::string& name) {
  return name == "euler"             ? SamplerKind::kEuler
         : name == "euler_a"         ? SamplerKind::kEulerAncestral
         : name == "dpmpp_2m_karras" ? SamplerKind::kDpmPp2mKarras
                                     : SamplerKind::kDdim;
}

Prompt parse_prompt(const std::string& text, const config::RunConfig& config, std::size_t number,
                    const std::string& where) {
  const auto& sample = config.sample;
  Prompt prompt;
  prompt.negative = sample.negative;
  prompt.width = sample.width;
  prompt.height = sample.height;
  prompt.steps = sample.steps;
  prompt.guidance = sample.guidance;
  prompt.seed = config.run.seed + number;
  auto at = text.find(" --");
  prompt.caption = trimmed(text.substr(0, at));
  while (at != std::string::npos) {
    const auto next = text.find(" --", at + 3);
    const auto setting = text.substr(at + 3, next == std::string::npos ? next : next - at - 3);
    const auto space = setting.find(' ');
    const auto key = setting.substr(0, space);
    const auto value = space == std::string::npos ? std::string() : trimmed(setting.substr(space));
    constexpr std::int64_t kMostPixels = 1 << 13;
    if (key == "n") {
      prompt.negative = value;
    } else if (key == "w") {
      prompt.width = number_of<std::int64_t>(where, value, key, 8, kMostPixels);
    } else if (key == "h") {
      prompt.height = number_of<std::int64_t>(where, value, key, 8, kMostPixels);
    } else if (key == "d") {
      prompt.seed = number_of<std::uint64_t>(where, value, key, 0, ~std::uint64_t{0});
    } else if (key == "l") {
      prompt.guidance = number_of<double>(where, value, key, 0, 1000);
    } else if (key == "s") {
      prompt.steps = number_of<std::int64_t>(where, value, key, 1, 1000);
    } else {
      throw_bad_config(
          fmt::format("{}: '{}' has --{}, and there are --n (what to steer away from), --w, --h "
                      "(width, height), --d (seed), --l (guidance) and --s (steps)",
                      where, prompt.caption, key));
    }
    at = next;
  }
  return prompt;
}

std::string parameters_text(const Prompt& prompt, std::int64_t width, std::int64_t height,
                            const std::string& sampler, const std::string& model) {
  return fmt::format(
      "{}\n{}Steps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}",
      prompt.caption, prompt.negative ? "Negative prompt: " + *prompt.negative + "\n" : "",
      prompt.steps, sampler, prompt.guidance, prompt.seed, width, height,
      std::filesystem::path(model).filename().string());
}

}  // namespace lorascale::workloads::diffusion
