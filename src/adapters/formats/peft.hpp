// Adapter folders as PEFT reads and writes them: adapter_config.json and adapter_model.safetensors
// with keys base_model.model.<module>.lora_{A,B}.weight, or of IA3 .ia3_l.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "adapters/adapter.hpp"
#include "adapters/lora/lora.hpp"
#include "nn/ia3.hpp"
#include "nn/lora_linear.hpp"

namespace lorascale::adapters {

// Names of files and keys, and what only this program writes into the weights' metadata.
inline constexpr const char* kPeftConfig = "adapter_config.json";
inline constexpr const char* kPeftWeights = "adapter_model.safetensors";
inline constexpr std::string_view kPeftPrefix = "base_model.model.";
inline constexpr const char* kAnswerEnd = "answer_end_id";

// Writes the folder (atomically file by file), reads it back and compares ΔW = s B A of every
// module with the one in memory; a difference is Error(kInternal). adapter_config.json names the
// base as base_model_of() does. `sites`: all of the model's.
void write_peft_adapter(const std::filesystem::path& folder, const std::vector<LoraModule>& modules,
                        const std::vector<nn::Site>& sites, const LoraSettings& settings,
                        const TrainableParameters& parameters, const ExportContext& context);

// Of LoRA, or where `scaling` is there of IA3, which has none of the rest.
struct PeftModule {
  at::Tensor a;  // fp32 CPU [rank, in], of a convolution [rank, in, height, width]
  at::Tensor b;  // fp32 CPU [out, rank], of a convolution [out, rank, 1, 1]
  double alpha = 0;
  double scale = 0;
  at::Tensor magnitude{};  // fp32 CPU [out] of DoRA; else undefined
  std::optional<nn::LayerScaling> scaling{};
  [[nodiscard]] std::vector<std::int64_t> weight_sizes() const;  // of the layer's weight
  [[nodiscard]] nn::LoraFactors factors() const;                 // without gradients
  // s B A, in the shape of the layer's weight.
  [[nodiscard]] at::Tensor low_rank_change() const;
  // What the adapter makes of a weight, as a difference to it.
  [[nodiscard]] at::Tensor weight_change(const at::Tensor& weight) const;
  [[nodiscard]] bool equals(const PeftModule& other) const;  // in all that it makes of a weight
};

// The same of factors in hand, those of `modules` in their order and in the shapes of the file.
struct PeftStorage {
  at::ScalarType type = at::kFloat;
  // Every layer stands in the file by a second name, too, with this before the first.
  std::string other_prefix{};
};
void write_peft_factors(const std::filesystem::path& folder, const std::vector<LoraModule>& modules,
                        const std::vector<PeftModule>& factors, const std::vector<nn::Site>& sites,
                        const LoraSettings& settings, const ExportContext& context,
                        const PeftStorage& storage = {});

struct PeftAdapter {
  std::filesystem::path folder;
  bool ia3 = false;  // all modules are
  // Rank, alpha, rslora and dropout of the file, and its targets where they are a list of names
  // that nothing narrows.
  LoraSettings settings;
  std::string base_model;
  std::int64_t answer_end_id = -1;            // of adapters of this program; -1: unknown
  std::map<std::string, PeftModule> modules;  // by module path
};
// Throws Error(kBadInput) on anything that is no adapter of LoRA or IA3 or that we could not apply
// faithfully.
PeftAdapter read_peft_adapter(const std::filesystem::path& folder);

// Settings that attach exactly the adapter's layers, with its ranks, alphas and dropout: what a
// training that begins from it takes where its configuration is silent. Names of layers where the
// file's own cannot be meant literally.
LoraSettings settings_to_go_on(const PeftAdapter& adapter);

// Fills the parameters from an adapter on the same modules and ranks; refuses with the differences
// otherwise.
void load_peft_adapter(const PeftAdapter& adapter, const std::vector<LoraModule>& modules,
                       TrainableParameters& parameters);

}  // namespace lorascale::adapters
