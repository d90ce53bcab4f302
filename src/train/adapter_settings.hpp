// Settings of the adapter: from the configuration, and from the adapter that a run begins with.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "adapters/lora.hpp"
#include "config/run_config.hpp"

namespace lorascale::train {

// Settings of the config as the adapter module takes them.
adapters::LoraSettings lora_settings(const config::AdapterSection& section);

// Where the run begins with an adapter (adapter.init_from), what its file says of rank, alpha,
// their patterns, targets, dropout and rsLoRA, but for what the user has `given` (paths of
// options). Returns a line for the log, or nothing where nothing was taken. What is given and
// contradicts the file is found when the weights are loaded. Errors as of read_peft_adapter().
std::optional<std::string> take_adapter_settings(const std::set<std::string>& given,
                                                 config::RunConfig* config);

}  // namespace lorascale::train
