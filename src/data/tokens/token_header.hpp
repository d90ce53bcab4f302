// What a token data set (docs/data.md) says of itself: attributes and sizes, no content.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "io/hdf5_file.hpp"

namespace lorascale::data {

struct TokenHeader {
  std::string tokenizer;            // SHA-256, "bytes", or empty
  std::int64_t vocabulary = 0;      // of the tokenizer; 0: unknown
  std::int64_t eos_id = -1;         // -1: none
  std::int64_t answer_end_id = -1;  // of the chat template; -1: none
  std::int64_t tokens = 0;          // of all documents
  std::int64_t documents = 0;
};

// Error(kBadInput) where the file is no data set of this version, or holds no document.
TokenHeader read_token_header(const io::Hdf5File& file, const std::filesystem::path& path);

}  // namespace lorascale::data
