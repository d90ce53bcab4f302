// Captions as rows of a text encoder: beginning, words, end, padding.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lorascale::data {

// What the tokens of captions mean.
struct CaptionTokens {
  std::int64_t vocabulary = 0;
  std::int32_t begin = 0, end = 0;
  std::vector<std::int32_t> pads;  // of each text encoder
  std::string tokenizer;           // SHA-256 of its vocabulary and merges
};

struct CaptionRows {
  std::int64_t encoders = 1;
  std::int64_t text_rows = 1;   // for one caption
  std::int64_t positions = 77;  // of a row
};

// Adds [encoders, text_rows, positions]; words beyond the rows are left out.
inline void add_caption_rows(std::span<const std::int32_t> words, const CaptionTokens& tokens,
                             const CaptionRows& rows, std::vector<std::int32_t>& ids) {
  const auto room = static_cast<std::size_t>(rows.positions - 2);
  for (std::int64_t encoder = 0; encoder < rows.encoders; ++encoder) {
    for (std::int64_t row = 0; row < rows.text_rows; ++row) {
      const auto first = std::min(words.size(), static_cast<std::size_t>(row) * room);
      const auto part = words.subspan(first, std::min(room, words.size() - first));
      ids.push_back(tokens.begin);
      ids.insert(ids.end(), part.begin(), part.end());
      ids.push_back(tokens.end);
      ids.insert(ids.end(), room - part.size(), tokens.pads[static_cast<std::size_t>(encoder)]);
    }
  }
}

}  // namespace lorascale::data
