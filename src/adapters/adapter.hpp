// What is trained beside or in a model: LoRA, all weights, ... Each kind attaches itself to the
// places that a model offers and owns one flat vector of parameters; the trainer knows no more of
// it than this. A new kind is its folder here and a row in adapter_table.cpp (docs/extending.md).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "adapters/parameters.hpp"
#include "config/run_config.hpp"
#include "nn/new_tokens.hpp"
#include "nn/parameter_slot.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

// What an adapter sees of a model, which must outlive it.
struct AdaptedModel {
  std::vector<nn::Site> sites;
  std::vector<nn::ParameterSlot> slots;
  std::vector<nn::ParameterSlot> file_slots;  // these, and what else the model's files hold
  std::vector<nn::TokenTable> token_tables;   // of text encoders that take words of their own
  // Parts that a user may name in adapter.targets and that take no adapter yet.
  std::vector<std::string> without_adapter;
  std::filesystem::path base;  // where it was read; empty: it begins untrained
};

// What files of results say beside the weights. Known to the workload.
struct ExportContext {
  std::filesystem::path base;  // as AdaptedModel's
  std::string task_type;       // by PEFT's names: "CAUSAL_LM"; empty: none
  // Kept in the weights' file of an adapter, where other readers pass over it.
  std::map<std::string, std::string> metadata;
  // Writes what makes a folder with the model's weights, stored in this type, one that others open.
  std::function<void(const std::filesystem::path& folder, at::ScalarType stored)> write_companions;
  // Writes the whole model by itself, where its files are not one of weights with companions.
  std::function<void(const std::filesystem::path& folder)> write_model{};
};

class Adapter {
 public:
  Adapter() = default;
  Adapter(const Adapter&) = delete;
  Adapter& operator=(const Adapter&) = delete;
  virtual ~Adapter() = default;

  virtual TrainableParameters& parameters() = 0;
  // How large its change of the model is: |dW| / |W| of all adapted layers as one vector. Some
  // small products per layer; waits for the device. Nothing where the start is not kept.
  virtual std::optional<double> movement() { return std::nullopt; }
  // After each update of the parameters: keeps them within limits that the settings have. Follows
  // from the parameters alone.
  virtual void constrain() {}
  // Writes the result into `folder`, reads it back where it is small, and throws Error(kInternal)
  // where that is not what was trained.
  virtual void write(const std::filesystem::path& folder, const ExportContext& context) const = 0;
  // The result's folder in that of the run: "adapter", "model".
  [[nodiscard]] virtual std::string_view result_name() const = 0;
  // Of the adapter that it begins from, for the log.
  [[nodiscard]] virtual std::optional<std::string> warning() const { return std::nullopt; }
};

// Attaches an adapter of `section.type`; what is random in its start follows from `seed` and names.
// Error(kBadConfig) where the settings do not fit the model.
std::unique_ptr<Adapter> make_adapter(const config::AdapterSection& section,
                                      const AdaptedModel& model, std::uint64_t seed);

// The same errors without a model's memory: `model` may be shapes alone.
void check_adapter(const config::AdapterSection& section, const AdaptedModel& model);

// Where a run begins with an adapter (adapter.init_from), what its file says of rank, alpha, their
// patterns, targets, dropout and rsLoRA, but for what the user has `given` (paths of options).
// Returns a line for the log, or nothing where nothing was taken. What is given and contradicts the
// file is found when the weights are loaded. Error(kBadInput) where the folder is no adapter.
std::optional<std::string> take_adapter_settings(const std::set<std::string>& given,
                                                 config::RunConfig* config);

// Whether the path is a folder of PEFT's, or a LoRA file or a folder with one.
bool is_adapter(const std::filesystem::path& path);

// "LoRA rank 8 on 4 layers". Errors as of describe_adapter().
std::string summarise_adapter(const std::filesystem::path& folder);

// An adapter folder in words, some lines. Error(kBadInput) where it is none that can be applied.
std::string describe_adapter(const std::filesystem::path& folder);

}  // namespace lorascale::adapters
