#include "cli/plan_headers.hpp"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <optional>

#include "adapters/lora.hpp"
#include "base/units.hpp"
#include "data/tokens/token_header.hpp"
#include "io/hdf5_file.hpp"
#include "io/model_reader.hpp"
#include "models/decoder/decoder.hpp"
#include "prepare/preparation.hpp"
#include "prepare/source_files.hpp"
#include "train/adapter_settings.hpp"
#include "train/session.hpp"

namespace lorascale::cli {
namespace {

namespace fs = std::filesystem;

// Nothing where the data is still to be prepared, which the job does where it runs.
std::optional<data::TokenHeader> open_data(const fs::path& path) {
  if (!prepare::is_token_file(path)) {
    return std::nullopt;
  }
  const io::Hdf5File file(path);
  return data::read_token_header(file, path);
}

void check_adapter(const config::RunConfig& config, models::decoder::Decoder& model) {
  if (config.adapter.type != "full") {
    adapters::match_lora_targets(model.linear_groups(), train::lora_settings(config.adapter));
  }
  if (config.adapter.init_from) {
    const fs::path folder = *config.adapter.init_from;
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
      if (!fs::is_regular_file(folder / name)) {
        throw_bad_input("adapter.init_from: " + (folder / name).string() +
                        " is not there; name the folder of a PEFT adapter");
      }
    }
  }
}

// How many rows the documents make is not in a header. With as many as they can make at most, what
// does not fit into the run never does.
void check_lengths(const config::RunConfig& config, const data::TokenHeader& data, int ranks) {
  const auto rows = data.documents + data.tokens / config.data.sequence_length;
  const double tokens_per_row =
      std::max(1.0, static_cast<double>(data.tokens) / static_cast<double>(rows));
  static_cast<void>(train::make_recipe(config, rows, tokens_per_row, ranks, nullptr));
}

}  // namespace

void check_headers(const options::variables_map& values, int ranks) {
  const auto loaded = load_config(values, ranks, config::Purpose::kTraining);
  const auto& config = loaded.config;
  static_cast<void>(io::ModelReader(config.model.path));  // what `train` opens first
  const auto model = models::decoder::read_decoder_shapes(config.model.path,
                                                          train::parse_dtype(config.model.dtype));
  prepare::require_sources(config);
  const auto data = open_data(config.data.train);
  if (config.data.validation) {
    const auto validation = open_data(*config.data.validation);
    if (data && validation && !data->tokenizer.empty() && !validation->tokenizer.empty() &&
        data->tokenizer != validation->tokenizer) {
      throw_bad_input(*config.data.validation + " was made with another tokenizer than " +
                      config.data.train + "; prepare both with the model's own");
    }
  }
  check_adapter(config, *model);
  if (data) {
    check_lengths(config, *data, ranks);
  }
  std::cout << "settings  of " << values["config"].as<std::string>() << ", for "
            << counted(ranks, "rank") << "\n"
            << "model     " << config.model.path << ": " << model->config().model_type
            << ", headers\n"
            << "data      " << config.data.train << ": "
            << (data ? counted(data->documents, "document") + ", " +
                           counted(data->tokens, "token") + ", header"
                     : std::string("is prepared when the job starts"))
            << "\n";
  for (const auto& note : loaded.notes) {
    std::cout << "note      " << note << "\n";
  }
}

}  // namespace lorascale::cli
