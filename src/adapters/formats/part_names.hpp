// Parts of models that make pictures, and the names of their layers: "unet.mid_block....",
// "text_encoder.text_model.encoder....".
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "adapters/formats/peft.hpp"

namespace lorascale::adapters {

inline constexpr const char* kParts[] = {"unet", "text_encoder", "text_encoder_2"};

// What stands before all layers of a text encoder, and what transformers 5 leaves out of the names
// of those without a projection.
inline constexpr std::string_view kTextModel = "text_model.";

// "unet" of "unet.mid_block.resnets.0.conv1"; empty where it begins with none of them.
std::string part_of_layer(const std::string& name);

// Adds it by its full name, which files may have without kTextModel or, as the same module, in both
// forms. Error(kBadInput) where these differ.
void add_by_one_name(const std::string& name, PeftModule module, const std::string& where,
                     std::map<std::string, PeftModule>& modules);

// Error(kBadInput) where the adapter has no module, or only some are of DoRA.
void require_one_kind(const PeftAdapter& adapter);

}  // namespace lorascale::adapters
