// Files of textual inversion: the rows of a new word, one safetensors file, as sd-scripts writes
// and every interface of Stable Diffusion reads it: `emb_params` [n, width] of one text encoder,
// `clip_l` and `clip_g` of the two of SDXL. Interfaces call the word by the file's name; what it
// was trained as is in the metadata.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "adapters/adapter.hpp"

namespace lorascale::adapters {

struct Embedding {
  std::string word;
  std::vector<at::Tensor> rows;  // of each text encoder, fp32 CPU [n, width]
};

// Into `folder`, in a file that bears the word's name without what files of some systems cannot.
// Written atomically, read back and compared; a difference is Error(kInternal).
void write_embedding(const std::filesystem::path& folder, const Embedding& embedding,
                     const ExportContext& context);

// The file that a path means: itself, or what is in a folder of results or of a run. Nothing where
// there is none of this form. Those of other programs have the word's own name as key, too.
std::optional<std::filesystem::path> embedding_file(const std::filesystem::path& path);

// Error(kBadInput) where it cannot be applied.
Embedding read_embedding(const std::filesystem::path& file);

// "word '<cat-toy>', 2 vectors of width 768", and with their sizes.
std::string summarise_embedding(const std::filesystem::path& file);
std::string describe_embedding(const std::filesystem::path& file);

}  // namespace lorascale::adapters
