// LoRA files of diffusers' form: one safetensors file with <part>.<layer>.lora_A.weight and
// .lora_B.weight ("unet.", "text_encoder.", "text_encoder_2."). A change is B A where the file's
// metadata (lora_adapter_metadata) says nothing else.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "adapters/formats/peft.hpp"

namespace lorascale::adapters {

// Its name in a folder, where diffusers finds it.
inline constexpr const char* kDiffusersFile = "pytorch_lora_weights.safetensors";

// Whether it is a file of this form, by the names of its tensors.
bool is_diffusers_lora(const std::filesystem::path& file);

// Modules by part and layer, in the shapes of the file; layers of text encoders begin with
// "text_model." whatever version wrote them. Error(kBadInput) on anything that could not be applied
// faithfully.
PeftAdapter read_diffusers_lora(const std::filesystem::path& file);

// Writes it (atomically) so that every version reads the same: each scale in its B, as not all know
// another one, and one rank in each part (what has less is filled up with zeros), as some take the
// first layer's for all. `modules`: by part and layer, in the shapes of the file, without
// magnitudes, which readers leave out. In `type` where that holds these numbers, else in fp32.
void write_diffusers_lora(const std::filesystem::path& file,
                          const std::map<std::string, PeftModule>& modules, at::ScalarType type);

}  // namespace lorascale::adapters
