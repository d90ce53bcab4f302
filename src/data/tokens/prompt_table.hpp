// Prompts that a token data set carries with their ids (layout: docs/data.md), since the trainer
// has no tokenizer. Checked when read.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/hdf5_file.hpp"

namespace lorascale::data {

class PromptTable {
 public:
  PromptTable() = default;
  // Ids at or above `vocabulary` are refused.
  static PromptTable read(const io::Hdf5File& file, std::int64_t vocabulary);

  [[nodiscard]] std::optional<std::vector<std::int32_t>> find(const std::string& text) const;

 private:
  std::map<std::string, std::vector<std::int32_t>> ids_;
};

}  // namespace lorascale::data
