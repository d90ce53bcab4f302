// A token data set as the trainer uses it: rows, leaves for updates prepared in the background,
// leaves in file order for validation, and text for people.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/tokens/row_plan.hpp"
#include "data/tokens/token_leaf.hpp"

namespace lorascale::train {

struct TokenSourceSettings {
  std::int64_t sequence_length = 512;
  std::optional<bool> packing;  // absent: auto, for updates of `batch` rows (row_plan.hpp)
  std::int64_t vocabulary = 0;  // of the model; larger token ids are refused
  std::int64_t batch = 1;
  bool text_only = false;  // no row is asked for, and which have targets is not looked up
};

class TokenSource {
 public:
  TokenSource(std::filesystem::path path, const TokenSourceSettings& settings);
  ~TokenSource();

  [[nodiscard]] std::int64_t rows() const;
  [[nodiscard]] std::int64_t documents() const;
  [[nodiscard]] bool packed() const;            // as asked for, or as auto decided
  [[nodiscard]] double tokens_per_row() const;  // average
  [[nodiscard]] std::int64_t targets_per_epoch() const;
  // What is in no row because none of its tokens is a target, and the same in words, with the
  // reason: "18 of 20 rows of FILE have no target...".
  [[nodiscard]] const data::LeftOut& left_out() const;
  [[nodiscard]] std::string left_out_text() const;
  // Throws Error(kBadInput) with the remedy where no row is left.
  void require_targets() const;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Tells apart what is trained on: the data set, and whether rows without a target were left out
  // of it, as versions before did not.
  [[nodiscard]] std::string fingerprint() const;
  [[nodiscard]] std::string dataset_fingerprint() const;
  // SHA-256 of its tokenizer.json, "bytes", or empty where the file does not say.
  [[nodiscard]] const std::string& tokenizer() const;
  // What a person should know about the set: documents, rows, tokens, packing efficiency.
  [[nodiscard]] std::string summary() const;

  // Rows [first, first + count) in file order.
  [[nodiscard]] data::TokenLeaf leaf(std::int64_t first, std::int64_t count) const;

  // The `count` rows with the most tokens: nothing that training asks for is larger. Where all of
  // their documents are equally long, the last row is exchanged for one that is not, if there is
  // one nearly as long: attention over mixed lengths takes a copy more.
  [[nodiscard]] data::TokenLeaf longest(std::int64_t count) const;

  // Training order: shuffled by `seed`, or file order.
  void start(std::optional<std::uint64_t> seed);
  // Announces an update: samples [first_position, + samples) of the run, of which this rank does
  // leaves [leaf_begin, leaf_end) of `leaf_size`. next() then yields them in order. What an update
  // that was given up has left over is forgotten.
  void begin_update(std::int64_t first_position, std::int64_t samples, std::int64_t leaf_size,
                    std::int64_t leaf_begin, std::int64_t leaf_end);
  data::TokenLeaf next();

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

}  // namespace lorascale::train
