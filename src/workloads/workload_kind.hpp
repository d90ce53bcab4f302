// The row of a kind of workload in the table.
#pragma once

#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/run_config.hpp"
#include "nn/new_tokens.hpp"
#include "workloads/tools.hpp"
#include "workloads/workload.hpp"

namespace lorascale::workloads {

struct WorkloadKind {
  std::string_view name;         // "language"; also the domain of its options
  std::string_view data_format;  // attribute `format` of its data files
  // The script that makes its data files; empty where a run prepares what is none (prepare/).
  std::string_view data_maker;
  // Whether a model of this section is one of this kind's. Reads no more than a config.json.
  bool (*takes)(const config::ModelSection& model);
  std::unique_ptr<Workload> (*open)(config::RunConfig& config, const prepare::DataFiles& files,
                                    const models::WeightPlace& place);
  HeaderReport (*check_headers)(const config::RunConfig& config);
  std::string (*describe_data)(const std::filesystem::path& file);
  // Null where the kind has no such thing.
  BaseModel (*read_base)(const config::ModelSection& model);
  std::string (*generate)(const config::RunConfig& config, at::Device device,
                          const GenerateRequest& request);
  std::string (*merge)(const MergeRequest& request);
  void (*take_defaults)(const std::set<std::string>& given, config::RunConfig& config) = nullptr;
  // What takes the word of adapter.token.
  std::vector<nn::TokenTable> (*token_tables)(models::Model& model,
                                              const config::RunConfig& config) = nullptr;
  // Null where adapters have PEFT's form alone.
  std::string (*export_adapter)(const ExportRequest& request) = nullptr;
};

std::span<const WorkloadKind> workload_kinds();
const WorkloadKind& workload_kind_of(const config::ModelSection& model);

}  // namespace lorascale::workloads
