#include "data/tokens/token_header.hpp"

#include <algorithm>

#include "base/error.hpp"

namespace lorascale::data {

TokenHeader read_token_header(const io::Hdf5File& file, const std::filesystem::path& path) {
  const std::string name = path.string();
  if (file.text_attribute("format").value_or("") != "lorascale-tokens") {
    throw_bad_input(
        name + " is no token data set (attribute format); make one with scripts/prepare_text.py");
  }
  const auto version = file.integer_attribute("version").value_or(0);
  if (version != 1) {
    throw_bad_input(
        name + " has version " + std::to_string(version) +
        "; this program reads version 1, make the file again with its scripts/prepare_text.py");
  }
  TokenHeader header;
  header.tokenizer = file.text_attribute("tokenizer_sha256").value_or("");
  header.eos_id = file.integer_attribute("eos_id").value_or(-1);
  header.answer_end_id = file.integer_attribute("answer_end_id").value_or(-1);
  header.vocabulary = file.integer_attribute("vocab_size").value_or(0);
  const auto last_end = std::max(header.eos_id, header.answer_end_id);
  if (header.vocabulary < 0 || std::min(header.eos_id, header.answer_end_id) < -1 ||
      (header.vocabulary > 0 && last_end >= header.vocabulary)) {
    throw_bad_input(name + " has vocab_size " + std::to_string(header.vocabulary) + ", eos_id " +
                    std::to_string(header.eos_id) + " and answer_end_id " +
                    std::to_string(header.answer_end_id) +
                    ", which cannot be; make the file again with scripts/prepare_text.py");
  }
  header.tokens = static_cast<std::int64_t>(
      file.dataset("/tokens", {io::Hdf5Type::kUint16, io::Hdf5Type::kUint32}).size());
  header.documents =
      static_cast<std::int64_t>(file.dataset("/offsets", {io::Hdf5Type::kInt64}).size()) - 1;
  if (header.tokens < 1 || header.documents < 1) {
    throw_bad_input(name + ": /offsets names no document; the data set is empty");
  }
  return header;
}

}  // namespace lorascale::data
