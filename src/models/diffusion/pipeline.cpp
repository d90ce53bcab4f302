#include "models/diffusion/pipeline.hpp"

#include <utility>

#include "models/diffusion/kohya_names.hpp"

namespace lorascale::models::diffusion {
namespace {

template <class Named>
void add_part_name(std::vector<Named>& all, std::vector<Named> of_part, const std::string& part) {
  for (auto& each : of_part) {
    if constexpr (std::is_same_v<Named, nn::Site>) {
      each.name = part + "." + each.name;
    } else {
      for (auto& key : each.parts) {
        key.key = part + "." + key.key;
      }
    }
    all.push_back(std::move(each));
  }
}

// The first and last convolution and what embeds the time take no adapter, as in sd-scripts and
// what its files are read by.
bool takes_adapter(const nn::Site& site) {
  return !site.name.starts_with("conv_in") && !site.name.starts_with("conv_out") &&
         !site.name.starts_with("time_embedding") && !site.name.starts_with("add_embedding");
}

}  // namespace

std::string text_part_name(std::size_t number) {
  return number == 0 ? "text_encoder" : "text_encoder_" + std::to_string(number + 1);
}

Pipeline::Pipeline(PipelineConfig config, at::ScalarType dtype, at::Device device)
    : config_(std::move(config)),
      dtype_(dtype),
      unet_(config_.unet, at::TensorOptions().dtype(dtype).device(device)),
      vae_(config_.vae,
           at::TensorOptions().dtype(dtype == at::kHalf ? at::kFloat : dtype).device(device)) {
  texts_.reserve(config_.texts.size());
  for (const auto& text : config_.texts) {
    texts_.emplace_back(text.clip, at::TensorOptions().dtype(dtype).device(device));
  }
}

std::vector<nn::Site> Pipeline::sites() {
  std::vector<nn::Site> all;
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    add_part_name(all, texts_[i].sites(), text_part_name(i));
  }
  auto of_unet = unet_.sites();
  std::erase_if(of_unet, [](const nn::Site& site) { return !takes_adapter(site); });
  add_part_name(all, std::move(of_unet), "unet");
  for (auto& site : all) {
    site.kohya_name = kohya_name(site.name, config_);
    site.stored_as_convolution =
        site.kind == nn::SiteKind::kConv2d || is_convolution_in_files(site.name, config_);
  }
  return all;
}

std::vector<nn::ParameterSlot> Pipeline::trained_slots() {
  std::vector<nn::ParameterSlot> all;
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    add_part_name(all, texts_[i].parameter_slots(), text_part_name(i));
  }
  add_part_name(all, unet_.parameter_slots(), "unet");
  return all;
}

std::vector<nn::ParameterSlot> Pipeline::vae_slots() {
  std::vector<nn::ParameterSlot> all;
  add_part_name(all, vae_.parameter_slots(), "vae");
  return all;
}

std::vector<nn::ParameterSlot> Pipeline::slots() {
  auto all = trained_slots();
  add_part_name(all, vae_.parameter_slots(), "vae");
  return all;
}

}  // namespace lorascale::models::diffusion
