// What the verbs do with models and data beside training, each in the way of the workload that the
// model or the file belongs to.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_config.hpp"

namespace lorascale::workloads {

// Whether the setting, such as "data.sequence_length", means something to this model, or is of
// other workloads.
bool uses_setting(const config::ModelSection& model, std::string_view path);

// What can be told of a configuration by headers alone. All its errors are thrown.
struct HeaderReport {
  std::string model;  // "llama"
  std::string data;   // "12 documents, 4,096 tokens"; empty: it is prepared when the run starts
  // Rows that the data makes at most, and tokens of each: what does not fit into a run of so many
  // never does. 0: unknown.
  std::int64_t most_rows = 0;
  double tokens_per_row = 0;
};
HeaderReport check_headers(const config::RunConfig& config);

struct GenerateRequest {
  std::optional<std::string> prompt;             // text to continue, or else
  std::optional<std::string> ids;                // token ids as text
  bool decode = false;                           // with ids: the result as text
  std::optional<std::filesystem::path> adapter;  // absent: the run's own, if there is one
  std::optional<std::int64_t> max_tokens;        // absent: as configured
  // Of pictures: the file to write, and how much of the adapter's change is applied; of several a
  // picture each, side by side.
  std::optional<std::filesystem::path> output;
  std::vector<double> strengths = {1};
  // The data that the run was trained on, and that of the configuration, prepared where it must be.
  std::optional<std::filesystem::path> trained_on;
  std::function<std::filesystem::path()> prepare;
};
// What the model of the configuration writes, or where the picture is that it makes. Error(kUsage)
// where it does neither.
std::string generate(const config::RunConfig& config, at::Device device,
                     const GenerateRequest& request);

struct MergeRequest {
  std::filesystem::path model, adapter, output;
  std::string dtype;                         // auto: as stored
  std::optional<std::int64_t> end_token_id;  // absent: as the adapter says
};
// Writes the merged model; returns what was done, for people.
std::string merge(const MergeRequest& request);

struct ExportRequest {
  std::filesystem::path adapter;  // or the folder of its run
  std::string form;               // "peft", "kohya", "diffusers"
  std::filesystem::path output;
  std::filesystem::path model;  // empty: what the run or the adapter names
};
// Writes an adapter in another form; returns what was done, for people.
std::string export_adapter(ExportRequest request);

// A prepared data set in words, some lines. Error(kBadInput) where the file is none.
std::string describe_data(const std::filesystem::path& file);

}  // namespace lorascale::workloads
