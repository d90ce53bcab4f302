// Texts that a token data set carries (layout: docs/data.md): the bytes that each token id stands
// for, and prompts with their ids, since the trainer has no tokenizer. Checked when read.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/hdf5_file.hpp"

namespace lorascale::data {

// Byte strings back to back: GROUP/bytes u8, GROUP/offsets i64 [entries + 1].
class ByteTable {
 public:
  ByteTable() = default;  // no entries
  // Without entries where the file has no such group; throws where it does not hold together.
  static ByteTable read(const io::Hdf5File& file, const std::string& group);

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(offsets_.size()) - 1; }
  [[nodiscard]] std::string_view operator[](std::int64_t entry) const;

 private:
  std::string bytes_;
  std::vector<std::int64_t> offsets_{0};
};

// Prompts as text and as ids.
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
