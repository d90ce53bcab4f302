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

// A run of tokens that spells a word which the model has ids of its own for.
struct WordForm {
  std::vector<std::int32_t> spelt, becomes;
};

struct CaptionRows {
  std::int64_t encoders = 1;
  std::int64_t text_rows = 1;        // for one caption
  std::int64_t positions = 77;       // of a row
  std::vector<WordForm> new_word{};  // of several that begin alike, the first counts
};

// A caption with new ids where it has the new word; how often that is goes to `found`.
inline std::vector<std::int32_t> with_new_word(std::span<const std::int32_t> words,
                                               const std::vector<WordForm>& forms,
                                               std::int64_t* found = nullptr) {
  std::vector<std::int32_t> result;
  while (!words.empty()) {
    const auto form = std::ranges::find_if(forms, [&](const WordForm& each) {
      return each.spelt.size() <= words.size() &&
             std::ranges::equal(each.spelt, words.first(each.spelt.size()));
    });
    if (form == forms.end()) {
      result.push_back(words.front());
      words = words.subspan(1);
      continue;
    }
    result.insert(result.end(), form->becomes.begin(), form->becomes.end());
    words = words.subspan(form->spelt.size());
    if (found != nullptr) {
      ++*found;
    }
  }
  return result;
}

// Adds [encoders, text_rows, positions]; words beyond the rows are left out.
inline void add_caption_rows(std::span<const std::int32_t> caption, const CaptionTokens& tokens,
                             const CaptionRows& rows, std::vector<std::int32_t>& ids) {
  const auto all = with_new_word(caption, rows.new_word);
  const std::span<const std::int32_t> words(all);
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
