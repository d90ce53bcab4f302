// Whether captions were made into tokens by the model's own tokenizer.
#pragma once

#include <filesystem>

#include "data/pictures/captioned_file.hpp"

namespace lorascale::workloads::diffusion {

// Error(kBadInput) where vocabulary, merges or padding of the captions in `file` are not those of
// the model's folder. Nothing is said of a model whose files hold no tokenizer.
void require_tokenizer_of_model(const data::CaptionedFile& file,
                                const std::filesystem::path& model);

}  // namespace lorascale::workloads::diffusion
