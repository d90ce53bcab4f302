// IA3 as an Adapter: numbers that scale the outputs of chosen layers, or of those that
// adapter.feedforward names the inputs (nn/ia3.hpp). Written as a folder that PEFT reads, or for
// models that make pictures as a file of LyCORIS' form.
#pragma once

#include "adapters/adapter.hpp"

namespace lorascale::adapters {

std::unique_ptr<Adapter> make_ia3_adapter(const config::AdapterSection& section,
                                          const AdaptedModel& model, std::uint64_t seed);
void check_ia3_adapter(const config::AdapterSection& section, const AdaptedModel& model);

// take_adapter_settings() for IA3.
std::optional<std::string> take_ia3_settings(const std::set<std::string>& given,
                                             config::RunConfig* config);

}  // namespace lorascale::adapters
