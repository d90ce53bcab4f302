// LoRA files as sd-scripts writes them and every interface of Stable Diffusion reads: one
// safetensors file with <name>.lora_down.weight (A), <name>.lora_up.weight (B) and <name>.alpha for
// each layer (and with DoRA <name>.dora_scale of each output, [out, 1(, 1, 1)]), where the
// name is the layer's path with underscores, and metadata ss_* for people. Readers take IA3 of
// LyCORIS' form (ia3.hpp), too.
#pragma once

#include <filesystem>
#include <optional>
#include <set>
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

// The file that a path means: itself, or what is in a folder of results or of a run. Nothing where
// it is no file of this form.
std::optional<std::filesystem::path> kohya_file(const std::filesystem::path& path);

// Whether it is a file of this form, by the names of its tensors.
bool is_kohya_adapter(const std::filesystem::path& file);

bool is_kohya_dora(const std::filesystem::path& file);
std::set<std::int64_t> ranks_of_kohya_adapter(const std::filesystem::path& file);

// "LoRA rank 8 on 264 layers", and layer by layer with the sizes of what they change.
std::string summarise_kohya_adapter(const std::filesystem::path& file);
std::string describe_kohya_adapter(const std::filesystem::path& file);

// `sites`: what the file's names may stand for. Error(kBadInput) on anything that could not be
// applied faithfully.
PeftAdapter read_kohya_adapter(const std::filesystem::path& file,
                               const std::vector<nn::Site>& sites);

}  // namespace lorascale::adapters
