// Rows of a token file: packed or a document each, cut to a length, without those that have no
// target; and the text that ids stand for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.hpp"
#include "data/tokens/row_plan.hpp"

namespace lorascale::data {

struct TokenRowSettings {
  std::int64_t sequence_length = 512;
  std::optional<bool> packing;  // absent: auto, for updates of `batch` rows (row_plan.hpp)
  std::int64_t vocabulary = 0;  // of the model; larger token ids are refused
  std::int64_t batch = 1;
  bool text_only = false;  // no row is asked for, and which have targets is not looked up
};

class TokenDataset : public Dataset {
 public:
  TokenDataset(std::filesystem::path path, const TokenRowSettings& settings);
  ~TokenDataset() override;

  [[nodiscard]] std::int64_t rows() const override;
  [[nodiscard]] double tokens_per_row() const override;
  [[nodiscard]] std::int64_t targets_per_epoch() const override;
  [[nodiscard]] std::unique_ptr<Leaf> leaf(const SampleKey& key,
                                           std::span<const std::int64_t> rows) const override;
  // Those with the most tokens. Where all of their documents are equally long, the last row is
  // exchanged for one that is not, if there is one nearly as long: attention over mixed lengths
  // takes a copy more.
  [[nodiscard]] std::vector<std::int64_t> heaviest(std::int64_t count) const override;
  // The file, and whether rows without a target were left out of it, as versions before did not.
  [[nodiscard]] std::string fingerprint() const override;
  [[nodiscard]] std::string why_other(const std::string& fingerprint) const override;
  // Documents, rows, tokens, packing efficiency.
  [[nodiscard]] std::string summary() const override;
  [[nodiscard]] std::string path() const override { return path_.string(); }

  [[nodiscard]] std::int64_t documents() const;
  [[nodiscard]] bool packed() const;  // as asked for, or as auto decided
  // What is in no row because none of its tokens is a target, and the same in words, with the
  // reason: "18 of 20 rows of FILE have no target...".
  [[nodiscard]] const LeftOut& left_out() const;
  [[nodiscard]] std::string left_out_text() const;
  // Throws Error(kBadInput) with the remedy where no row is left.
  void require_targets() const;
  // SHA-256 of its tokenizer.json, "bytes", or empty where the file does not say.
  [[nodiscard]] const std::string& tokenizer() const;

  // The token that its documents end in; -1 where they have none.
  [[nodiscard]] std::int64_t end_id() const;
  // The token that ends an answer by the chat template of its conversations; -1: it has none.
  [[nodiscard]] std::int64_t answer_end_id() const;

  // Text of token ids by the data set's own table, and the ids of a prompt that it was prepared
  // with (of any, where it is byte-level).
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids) const;
  [[nodiscard]] std::vector<std::int32_t> encode_prompt(const std::string& text) const;

 private:
  struct Impl;
  std::filesystem::path path_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorascale::data
