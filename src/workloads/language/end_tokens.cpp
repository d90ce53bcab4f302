#include "workloads/language/end_tokens.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace lorascale::workloads::language {

std::vector<std::int64_t> end_ids(const models::decoder::DecoderConfig& model,
                                  const data::TokenDataset* dataset) {
  auto ids = model.eos_ids;
  if (dataset != nullptr) {
    for (const auto id : {dataset->end_id(), dataset->answer_end_id()}) {
      if (id >= 0) {
        ids.push_back(id);
      }
    }
  }
  return ids;
}

std::optional<std::string> warning_of_end_token(const models::decoder::DecoderConfig& model,
                                                std::int64_t answer_end_id,
                                                const std::string& text) {
  const auto& known = model.server_eos_ids;
  if (answer_end_id < 0 || std::find(known.begin(), known.end(), answer_end_id) != known.end()) {
    return std::nullopt;
  }
  const std::string named =
      known.empty() ? "no end token" : fmt::format("{} as end", fmt::join(known, ", "));
  return fmt::format(
      "answers of the data end with token {} ({}), but the model's generation_config.json and "
      "config.json name {}: servers will not stop there. The result says it right: `lorascale "
      "merge` and exported models write a generation_config.json with that token",
      answer_end_id, text, named);
}

}  // namespace lorascale::workloads::language
