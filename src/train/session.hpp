// Everything a run consists of before its first update: data, model, adapter, optimizer and recipe,
// opened and checked on all ranks. `plan` stops here; the trainer goes on.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "adapters/lora.hpp"
#include "adapters/parameters.hpp"
#include "config/run_config.hpp"
#include "coordinator/cadence.hpp"
#include "coordinator/coordinator.hpp"
#include "models/decoder/decoder.hpp"
#include "optim/optimizer.hpp"
#include "optim/weight_average.hpp"
#include "prepare/preparation.hpp"
#include "train/leaf_stream.hpp"
#include "train/world.hpp"

namespace lorascale::train {

// What is trained: a LoRA adapter on some layers, or all weights.
struct Trainable {
  std::unique_ptr<adapters::TrainableParameters> parameters;
  std::vector<adapters::LoraModule> modules;  // empty for type: full
  adapters::LoraSettings lora;
  std::optional<std::string> warning;  // of the adapter that it begins from
  [[nodiscard]] bool is_full() const { return modules.empty(); }
};

struct Session {
  config::RunConfig config;
  prepare::DataFiles files;  // behind config.data
  std::unique_ptr<TokenSource> train;
  std::unique_ptr<TokenSource> validation;  // may be null
  std::unique_ptr<models::decoder::Decoder> model;
  Trainable trainable;
  std::unique_ptr<optim::Optimizer> optimizer;
  optim::WeightAverage* average = nullptr;  // is the optimizer, where averages are kept
  UnitContext units;
  coordinator::Recipe recipe;
  std::string model_fingerprint;
};

// Collective: every rank opens its files; a failure on one ends all with its message, and files
// that differ between ranks are refused. `files` are those of config.data (prepare_data).
Session open_session(World& world, const config::RunConfig& config,
                     const prepare::DataFiles& files);

// The recipe in samples. `rows` and `tokens_per_row` describe the training set.
coordinator::Recipe make_recipe(const config::RunConfig& config, std::int64_t rows,
                                double tokens_per_row, int world_size, UnitContext* units);

// What the recipe says of the data and the adapter for people and the advisor.
void describe_data(const Session& session, coordinator::Recipe& recipe);

// Where text that the model writes ends: at its own end tokens, and at that of the data set, where
// there is one.
std::vector<std::int64_t> end_ids(const models::decoder::Decoder& model, const TokenSource* source);

// "bf16" etc.; nothing for "auto".
std::optional<at::ScalarType> parse_dtype(const std::string& name);

}  // namespace lorascale::train
