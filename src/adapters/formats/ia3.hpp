// Adapters of IA3 in files: PEFT's folders (<module>.ia3_l, with the names of layers whose inputs
// are scaled in feedforward_modules), and files of LyCORIS' form (<name>.weight, which is l - 1,
// and <name>.on_input), which WebUIs read beside LoRA.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "adapters/formats/peft.hpp"
#include "io/safetensors.hpp"
#include "io/strict_json.hpp"
#include "nn/ia3.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

struct Ia3Layer {
  nn::Site site;
  nn::LayerScaling scaling;  // on the CPU
};

// Each writes its files (atomically), reads them back and compares; a difference is
// Error(kInternal). `sites`: all of the model's.
void write_peft_ia3(const std::filesystem::path& folder, const std::vector<Ia3Layer>& layers,
                    const std::vector<nn::Site>& sites, const ExportContext& context);
void write_kohya_ia3(const std::filesystem::path& file, const std::vector<Ia3Layer>& layers,
                     const ExportContext& context);

// Modules of a folder whose config says IA3. Error(kBadInput) where they could not be applied
// faithfully.
void read_peft_ia3(const io::JsonObject& config, const io::SafetensorsFile& file,
                   PeftAdapter& adapter);

// Whether the file is of LyCORIS' form, by the names of its tensors.
bool is_kohya_ia3(const io::SafetensorsFile& file);
// Its modules by the names in the file. Error(kBadInput) where it holds anything else.
std::map<std::string, PeftModule> read_kohya_ia3(const io::SafetensorsFile& file);

// "IA3 on 48 layers".
std::string summarise_ia3(std::size_t layers);
// Layer by layer: what is scaled, and how much it is changed.
std::string describe_ia3(const std::map<std::string, PeftModule>& modules);

}  // namespace lorascale::adapters
