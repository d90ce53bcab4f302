// What a folder of PEFT's has in common for adapters of whatever kind.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "adapters/adapter.hpp"
#include "adapters/formats/factor.hpp"
#include "nn/site.hpp"

namespace lorascale::adapters {

// peft_type, task_type, base and revision, and what has one value for all adapters of this program.
nlohmann::json peft_config_of(const char* peft_type, const ExportContext& context);

// Layers as target_modules has them: short names where they mean exactly these of the model's
// `sites`, else full paths, else, where a path is the end of another one, as a stem's "conv1", one
// expression.
nlohmann::json peft_names_of(const std::set<std::string>& layers,
                             const std::vector<nn::Site>& sites);

// Both files of the folder (each atomically).
void write_peft_files(const std::filesystem::path& folder, const FactorsToWrite& weights,
                      const nlohmann::json& config, const ExportContext& context);

}  // namespace lorascale::adapters
