// What a user should know before a run begins although nothing is wrong with it: settings that fit
// the machine or the model badly.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "models/decoder/decoder.hpp"

namespace lorascale::train {

// One line each, those of the model's own files included.
std::vector<std::string> start_warnings(const config::RunConfig& config,
                                        const models::decoder::Decoder& model);

// A line where threads that wait by spinning would do so on cores that others want: `load` is the
// machine's, of which `cores` are there; `policy_is_set`: OMP_WAIT_POLICY says how to wait.
std::optional<std::string> warning_of_spinning(int threads, double load, int cores,
                                               bool policy_is_set);

// A line where servers and transformers' generate() would not stop at the token that ends the
// answers of the data (`answer_end_id`, -1: none; `text` is what it reads).
std::optional<std::string> warning_of_end_token(const models::decoder::DecoderConfig& model,
                                                std::int64_t answer_end_id,
                                                const std::string& text);

}  // namespace lorascale::train
