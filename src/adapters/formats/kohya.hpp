// LoRA files as sd-scripts writes them and every interface of Stable Diffusion reads: one
// safetensors file with <name>.lora_down.weight (A), <name>.lora_up.weight (B) and <name>.alpha for
// each layer, where the name is the layer's path with underscores, and metadata ss_* for people.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "adapters/adapter.hpp"
#include "adapters/formats/peft.hpp"
#include "adapters/lora/lora.hpp"

namespace lorascale::adapters {

// Its name in a folder of results.
inline constexpr const char* kKohyaFile = "lora.safetensors";

// Writes the file (atomically), reads it back and compares ΔW of every module with the one in
// memory; a difference is Error(kInternal).
void write_kohya_adapter(const std::filesystem::path& file, const std::vector<LoraModule>& modules,
                         const LoraSettings& settings, const TrainableParameters& parameters,
                         const ExportContext& context);

// `sites`: what the file's names may stand for. Error(kBadInput) on anything that could not be
// applied faithfully.
PeftAdapter read_kohya_adapter(const std::filesystem::path& file,
                               const std::vector<nn::Site>& sites, const KohyaLayout& layout);

}  // namespace lorascale::adapters
