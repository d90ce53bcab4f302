// LoRA as an Adapter: attached by the configuration, begun from an adapter folder perhaps, written
// as one that PEFT reads.
#pragma once

#include "adapters/adapter.hpp"
#include "adapters/lora/lora.hpp"

namespace lorascale::adapters {

// Settings of the configuration as LoRA takes them.
LoraSettings lora_settings(const config::AdapterSection& section);

std::unique_ptr<Adapter> make_lora_adapter(const config::AdapterSection& section,
                                           const AdaptedModel& model, std::uint64_t seed);
void check_lora_adapter(const config::AdapterSection& section, const AdaptedModel& model);

// take_adapter_settings() for LoRA.
std::optional<std::string> take_lora_settings(const std::set<std::string>& given,
                                              config::RunConfig* config);

}  // namespace lorascale::adapters
