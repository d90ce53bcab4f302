#include "models/diffusion/kohya_names.hpp"

#include <algorithm>
#include <vector>

#include "base/error.hpp"
#include "models/diffusion/ldm_names.hpp"

namespace lorascale::models::diffusion {
namespace {

std::string with_underscores(std::string path) {
  std::ranges::replace(path, '.', '_');
  return path;
}

}  // namespace

std::string kohya_name(const std::string& site, const PipelineConfig& config) {
  const bool xl = config.variant == Variant::kSdxl;
  const auto dot = site.find('.');
  LS_ASSERT(dot != std::string::npos);
  const auto part = site.substr(0, dot);
  auto path = site.substr(dot + 1);
  if (part != "unet") {
    const auto* prefix = !xl ? "lora_te_" : part == "text_encoder" ? "lora_te1_" : "lora_te2_";
    return prefix + with_underscores(path);
  }
  if (xl) {
    std::vector<bool> attention;
    for (const auto& level : config.unet.levels) {
      attention.push_back(level.depth > 0);
    }
    // By way of a parameter's name, which the table is of.
    const std::string weight = ".weight", prefix = "model.diffusion_model.";
    path = unet_name_in_ldm(path + weight, config.unet.layers_per_level, attention);
    path = path.substr(prefix.size(), path.size() - prefix.size() - weight.size());
  }
  return "lora_unet_" + with_underscores(path);
}

bool is_convolution_in_files(const std::string& site, const PipelineConfig& config) {
  const bool projection = site.ends_with(".proj_in") || site.ends_with(".proj_out");
  return config.variant == Variant::kSd1 && projection && site.starts_with("unet.");
}

}  // namespace lorascale::models::diffusion
