// A token data set on disk (layout: docs/data.md): all documents' token ids back to back, with
// offsets and an optional mask of targets. Checked when opened; blocks of tokens are checked (ids,
// checksums) when first touched. Reading is thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "data/tokens/text_tables.hpp"
#include "io/file_descriptor.hpp"
#include "io/hdf5_file.hpp"

namespace lorascale::data {

class TokenFile {
 public:
  // `vocabulary`: of the model; an id at or above it is an error that names document and position.
  // A set made for a larger one is looked through at once.
  TokenFile(std::filesystem::path path, std::int64_t vocabulary);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
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
  void read_offsets(const io::Hdf5File& file);
  void hash_samples(Sha256& hash) const;
  void read_checksums(const io::Hdf5File& file);
  void read_raw(const io::Hdf5Dataset& dataset, std::uint64_t first, std::uint64_t count,
                void* destination) const;
  void verify_blocks(std::int64_t first, std::int64_t count) const;
  void verify_block(std::int64_t block) const;
  void check_block(const std::vector<std::uint32_t>& checks, std::int64_t block,
                   std::span<const std::byte> bytes, const char* name) const;
  [[noreturn]] void refuse_token(std::int64_t index, std::int64_t id) const;

  std::filesystem::path path_;
  std::int64_t vocabulary_;
  io::OpenedFile raw_;  // for reads that bypass the HDF5 library
  std::unique_ptr<io::Hdf5File> file_;
  std::optional<io::Hdf5Dataset> tokens_;
  std::optional<io::Hdf5Dataset> mask_;
  std::vector<std::int64_t> offsets_;
  std::vector<std::uint32_t> token_checks_,
      mask_checks_;         // CRC-32 of each block, where the file has them
  std::int64_t block_ = 0;  // elements of a block
  mutable std::unique_ptr<std::atomic<bool>[]> verified_;  // [blocks]
  std::string tokenizer_;
  std::int64_t eos_id_ = -1;
  std::int64_t answer_end_id_ = -1;
  ByteTable token_bytes_;
  PromptTable prompts_;
  std::string fingerprint_;
};

}  // namespace lorascale::data
