// LoRAs of models that make pictures, in whatever form: a file of sd-scripts' form, one of
// diffusers', or folders of PEFT's, one for each part.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "adapters/formats/peft.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

enum class PictureForm { kKohya, kDiffusers, kPeft };

// The file or folder that a path means: itself, or what is in a folder of results or of a run.
// Nothing where it is neither a .safetensors file nor a folder with a LoRA.
std::optional<std::filesystem::path> picture_lora(const std::filesystem::path& path);

// Of what picture_lora() found; nothing where it is no LoRA.
std::optional<PictureForm> form_of_picture_lora(const std::filesystem::path& lora);

// Whether it is no LoRA but IA3, which has the first form alone.
bool is_picture_ia3(const std::filesystem::path& lora);
bool is_picture_dora(const std::filesystem::path& lora);
std::set<std::int64_t> ranks_of_picture_lora(const std::filesystem::path& lora);

// As summarise_adapter() and describe_adapter().
std::string summarise_picture_lora(const std::filesystem::path& lora);
std::string describe_picture_lora(const std::filesystem::path& lora);

// By the model's names and in the shapes of its layers. `sites`: what the names may stand for.
// Error(kBadInput) on anything that could not be applied faithfully.
PeftAdapter read_picture_lora(const std::filesystem::path& lora,
                              const std::vector<nn::Site>& sites);

}  // namespace lorascale::adapters
