// Adapter folders as PEFT reads and writes them: adapter_config.json and adapter_model.safetensors
// with keys base_model.model.<module>.lora_{A,B}.weight.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "adapters/lora.hpp"

namespace lorascale::adapters {

// Writes the folder (atomically file by file), reads it back and compares ΔW = s B A of every
// module with the one in memory; a difference is Error(kInternal). `model_path` is where the base
// model was read; adapter_config.json names it as base_model_of() does. `answer_end_id` (-1: none),
// the token that ends the answers it was trained on, is kept in the metadata of the weights' file,
// which other readers pass over.
void write_peft_adapter(const std::filesystem::path& folder, const std::vector<LoraModule>& modules,
                        const std::vector<nn::LinearGroup*>& groups, const LoraSettings& settings,
                        const TrainableParameters& parameters,
                        const std::filesystem::path& model_path, std::int64_t answer_end_id = -1);

struct PeftModule {
  at::Tensor a;  // fp32 CPU [rank, in]
  at::Tensor b;  // fp32 CPU [out, rank]
  double alpha = 0;
  double scale = 0;
};
struct PeftAdapter {
  std::filesystem::path folder;
  // Rank, alpha, rslora and dropout of the file, and its targets where they are a list of names
  // that nothing narrows.
  LoraSettings settings;
  std::string base_model;
  std::int64_t answer_end_id = -1;            // of adapters of this program; -1: unknown
  std::map<std::string, PeftModule> modules;  // by module path
};
// Throws Error(kBadInput) on anything that is no LoRA adapter or that we could not apply faithfully
// (DoRA, ...).
PeftAdapter read_peft_adapter(const std::filesystem::path& folder);

// Settings that attach exactly the adapter's layers, with its ranks, alphas and dropout: what a
// training that begins from it takes where its configuration is silent. Names of layers where the
// file's own cannot be meant literally.
LoraSettings settings_to_go_on(const PeftAdapter& adapter);

// Fills the parameters from an adapter on the same modules and ranks; refuses with the differences
// otherwise.
void load_peft_adapter(const PeftAdapter& adapter, const std::vector<LoraModule>& modules,
                       TrainableParameters& parameters);

// Adds s B A to the weights, in fp32, rounded once. Throws where a module is not in the model.
void merge_into_weights(const PeftAdapter& adapter, const std::vector<nn::LinearGroup*>& groups);

}  // namespace lorascale::adapters
