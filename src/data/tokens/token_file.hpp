// A token data set on disk (layout: docs/data.md): all documents' token ids back to back, with
// offsets and an optional mask of targets. Checked when opened; blocks of tokens are checked (ids,
// checksums) when first touched. Reading is thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/byte_table.hpp"
#include "data/checked_elements.hpp"
#include "data/tokens/prompt_table.hpp"

namespace lorascale::data {

class TokenFile {
 public:
  // `vocabulary`: of the model; an id at or above it is an error that names document and position.
  // A set made for a larger one is looked through at once.
  TokenFile(std::filesystem::path path, std::int64_t vocabulary);

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }
  [[nodiscard]] std::int64_t documents() const {
    return static_cast<std::int64_t>(offsets_.size()) - 1;
  }
  [[nodiscard]] const std::vector<std::int64_t>& offsets() const {
    return offsets_;
  }  // [documents + 1]
  [[nodiscard]] std::int64_t tokens() const { return offsets_.back(); }
  [[nodiscard]] bool has_loss_mask() const { return mask_.has_value(); }
  [[nodiscard]] const std::string& tokenizer() const {
    return tokenizer_;
  }                                                              // SHA-256, "bytes", or empty
  [[nodiscard]] std::int64_t eos_id() const { return eos_id_; }  // -1: none
  // The token that ends an answer by the chat template of the set's conversations; -1: none.
  [[nodiscard]] std::int64_t answer_end_id() const { return answer_end_id_; }

  void read_tokens(std::int64_t first, std::span<std::int32_t> destination) const;
  void read_mask(std::int64_t first,
                 std::span<std::uint8_t> destination) const;  // needs has_loss_mask()
  // Tokens are checked in blocks of this many, the last one short.
  [[nodiscard]] std::int64_t block_size() const { return block_; }
  // The mask of a block, checked, without a look at its tokens; needs has_loss_mask().
  [[nodiscard]] std::vector<std::uint8_t> checked_mask(std::int64_t block) const;

  // Bytes that the ids stand for; empty where the set carries no vocabulary table.
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids) const;
  // Ids of a prompt that the set was prepared with. Byte-level sets know every text; others refuse
  // what they do not hold.
  [[nodiscard]] std::vector<std::int32_t> encode_prompt(const std::string& text) const;

  // Tells data sets apart, on two ranks or before and after a stop: SHA-256 over attributes, sizes,
  // offsets and checksums; where the file has none, over all of a small set and samples of a large
  // one.
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }

 private:
  void read_offsets();
  void verify(std::int64_t first, std::int64_t count) const;
  void verify_block(std::int64_t block) const;
  [[noreturn]] void refuse_token(std::int64_t index, std::int64_t id) const;

  std::int64_t vocabulary_;
  CheckedFile file_;
  std::optional<CheckedElements> tokens_;
  std::optional<CheckedElements> mask_;
  std::vector<std::int64_t> offsets_;
  std::int64_t block_ = 0;
  std::string tokenizer_;
  std::int64_t eos_id_ = -1;
  std::int64_t answer_end_id_ = -1;
  ByteTable token_bytes_;
  PromptTable prompts_;
  std::string fingerprint_;
};

}  // namespace lorascale::data
