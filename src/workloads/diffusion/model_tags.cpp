#include "workloads/diffusion/model_tags.hpp"

namespace lorascale::workloads::diffusion {

std::map<std::string, std::string> tags_of_model(const models::diffusion::PipelineConfig& pipeline,
                                                 bool velocity,
                                                 const std::filesystem::path& model) {
  using models::diffusion::Variant;
  const bool v2 = pipeline.variant == Variant::kSd2;
  const auto* version = pipeline.variant == Variant::kSdxl ? "sdxl_base_v1-0"
                        : v2                               ? (velocity ? "sd_v2_v" : "sd_v2")
                                                           : (velocity ? "sd_v1_v" : "sd_v1");
  const auto* architecture =
      pipeline.variant == Variant::kSdxl ? "stable-diffusion-xl-v1-base"
      : v2 ? (velocity ? "stable-diffusion-v2-768-v" : "stable-diffusion-v2-512")
           : "stable-diffusion-v1";
  return {
      {"ss_v2", v2 ? "True" : "False"},
      {"ss_base_model_version", version},
      {"ss_sd_model_name", model.filename().string()},
      {"modelspec.sai_model_spec", "1.0.1"},
      {"modelspec.architecture", std::string(architecture) + "/lora"},
      {"modelspec.implementation", "diffusers"},
      {"modelspec.prediction_type", velocity ? "v" : "epsilon"},
  };
}

}  // namespace lorascale::workloads::diffusion
