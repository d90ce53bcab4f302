// A LoRA of a model that makes pictures as folders of PEFT's, one for each part: unet/,
// text_encoder/, text_encoder_2/, as PeftModel.from_pretrained(part, folder) reads them.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "adapters/formats/peft.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

// Whether the folder holds such folders.
bool has_peft_parts(const std::filesystem::path& folder);

// Those of them that are there.
std::vector<std::filesystem::path> peft_parts(const std::filesystem::path& folder);

// As read_diffusers_lora(), of all parts.
PeftAdapter read_peft_parts(const std::filesystem::path& folder);

// `adapter`: modules by part and layer, in the shapes of the file; `sites`: all of the model's, by
// the same names. Layers of the first text encoder stand there by both of their names, since
// transformers 4 and 5 differ in them. Factors in `type` where that holds these numbers, else in
// fp32. `model`: the base, whose folder of the part is named if it has some. `metadata` goes into
// the weights' files, where readers pass over it.
void write_peft_parts(const std::filesystem::path& folder, const PeftAdapter& adapter,
                      const std::vector<nn::Site>& sites, at::ScalarType type,
                      const std::filesystem::path& model,
                      const std::map<std::string, std::string>& metadata);

}  // namespace lorascale::adapters
