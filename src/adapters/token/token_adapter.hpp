// `type: token`: nothing is trained but the rows of a new word.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>

#include "adapters/adapter.hpp"

namespace lorascale::adapters {

std::unique_ptr<Adapter> make_token_adapter(const config::AdapterSection& section,
                                            const AdaptedModel& model, std::uint64_t seed);
void check_token_adapter(const config::AdapterSection& section, const AdaptedModel& model);

// take_adapter_settings() for a word: the number of vectors.
std::optional<std::string> take_token_settings(const std::set<std::string>& given,
                                               config::RunConfig* config);

}  // namespace lorascale::adapters
