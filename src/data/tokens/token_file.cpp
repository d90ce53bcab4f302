#include "data/tokens/token_file.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/heartbeat.hpp"
#include "data/tokens/token_header.hpp"

namespace lorascale::data {
namespace {

constexpr std::int64_t kLargestTokenBlock = std::int64_t{1} << 30;

}  // namespace

TokenFile::TokenFile(std::filesystem::path path, std::int64_t vocabulary)
    : vocabulary_(vocabulary), file_(std::move(path), "scripts/prepare_text.py") {
  const auto header = read_token_header(file_.hdf5(), file_.path());
  tokenizer_ = header.tokenizer;
  eos_id_ = header.eos_id;
  answer_end_id_ = header.answer_end_id;
  block_ = file_.block_size(kLargestTokenBlock);
  tokens_.emplace(file_, "tokens", std::vector{io::Hdf5Type::kUint16, io::Hdf5Type::kUint32},
                  block_);
  read_offsets();
  if (file_.hdf5().has("/loss_mask")) {
    mask_.emplace(file_, "loss_mask", std::vector{io::Hdf5Type::kUint8}, block_);
    if (mask_->size() != tokens_->size()) {
      throw_bad_input(file_.path().string() + ": /loss_mask has " + std::to_string(mask_->size()) +
                      " entries for " + std::to_string(tokens_->size()) +
                      " tokens; make the file again");
    }
  }
  token_bytes_ = ByteTable::read(file_.hdf5(), "/vocabulary");
  prompts_ = PromptTable::read(file_.hdf5(), vocabulary);
  if (header.vocabulary > vocabulary) {
    // A tokenizer may know more tokens than the model, a pad token say. What matters is that none
    // of them is here, and that is better known now than when it is come to.
    for (std::int64_t first = 0; first < tokens(); first += block_) {
      beat("looking through the data set");
      verify(first, std::min(block_, tokens() - first));
    }
  }
  Sha256 hash;
  hash.update("tokens:" + std::to_string(tokens()) + ":" + tokenizer_ + ":");
  hash.update(std::as_bytes(std::span(offsets_)));
  tokens_->hash_checks(hash);
  if (mask_) {
    mask_->hash_checks(hash);
  }
  tokens_->hash_samples(hash);
  if (mask_) {
    mask_->hash_samples(hash);
  }
  fingerprint_ = hash.hex();
}

void TokenFile::read_offsets() {
  const auto dataset = file_.hdf5().dataset("/offsets", {io::Hdf5Type::kInt64});
  offsets_.resize(dataset.size());
  dataset.read(0, dataset.size(), offsets_.data());
  const std::string where = path().string() + ": /offsets";
  if (offsets_.size() < 2) {
    throw_bad_input(where + " names no document; the data set is empty");
  }
  if (offsets_.front() != 0 || offsets_.back() != static_cast<std::int64_t>(tokens_->size())) {
    throw_bad_input(where + " must begin at 0 and end at the number of tokens, " +
                    std::to_string(tokens_->size()));
  }
  for (std::size_t i = 0; i + 1 < offsets_.size(); ++i) {
    if (offsets_[i + 1] <= offsets_[i]) {
      throw_bad_input(where + " must ascend; entry " + std::to_string(i + 1) + " is " +
                      std::to_string(offsets_[i + 1]) + " after " + std::to_string(offsets_[i]));
    }
  }
  file_.check_whole("offsets", {std::as_bytes(std::span(offsets_))});
}

void TokenFile::refuse_token(std::int64_t index, std::int64_t id) const {
  const auto after = std::upper_bound(offsets_.begin(), offsets_.end(), index);
  const auto document = after - offsets_.begin() - 1;
  throw_bad_input(path().string() + ": document " + std::to_string(document) + ", token " +
                  std::to_string(index - offsets_[static_cast<std::size_t>(document)]) + " is id " +
                  std::to_string(id) + ", but the model's vocabulary ends at " +
                  std::to_string(vocabulary_ - 1) +
                  "; prepare it with this model's tokenizer, or without a token that was added to "
                  "it, for new tokens cannot be trained yet");
}

void TokenFile::verify_block(std::int64_t block) const {
  const auto scan = [&]<typename T>(T) {
    const auto values = tokens_->block<T>(block);
    const auto largest = std::max_element(values.begin(), values.end());
    if (static_cast<std::int64_t>(*largest) >= vocabulary_) {
      refuse_token(block * block_ + (largest - values.begin()),
                   static_cast<std::int64_t>(*largest));
    }
  };
  if (tokens_->type() == io::Hdf5Type::kUint16) {
    scan(std::uint16_t{});
  } else {
    scan(std::uint32_t{});
  }
  if (mask_) {
    static_cast<void>(checked_mask(block));
  }
}

std::vector<std::uint8_t> TokenFile::checked_mask(std::int64_t block) const {
  LS_ASSERT(mask_.has_value());
  auto values = mask_->block<std::uint8_t>(block);
  const auto wrong =
      std::find_if(values.begin(), values.end(), [](std::uint8_t value) { return value > 1; });
  if (wrong != values.end()) {
    throw_bad_input(path().string() + ": /loss_mask holds " + std::to_string(*wrong) +
                    " at token " + std::to_string(block * block_ + (wrong - values.begin())) +
                    "; only 0 and 1 have a meaning");
  }
  return values;
}

void TokenFile::verify(std::int64_t first, std::int64_t count) const {
  tokens_->at_first_touch(first, count, [this](std::int64_t block) { verify_block(block); });
}

void TokenFile::read_tokens(std::int64_t first, std::span<std::int32_t> destination) const {
  const auto count = static_cast<std::int64_t>(destination.size());
  verify(first, count);
  const auto convert = [&]<typename T>(T) {
    std::vector<T> values(destination.size());
    tokens_->read(first, count, values.data());
    std::copy(values.begin(), values.end(), destination.begin());
  };
  if (tokens_->type() == io::Hdf5Type::kUint16) {
    convert(std::uint16_t{});
  } else {
    convert(std::uint32_t{});
  }
  // A file that changes while it is used escapes the block's check; the model must not see a wild
  // id.
  for (std::size_t i = 0; i < destination.size(); ++i) {
    if (destination[i] < 0 || destination[i] >= vocabulary_) {
      refuse_token(first + static_cast<std::int64_t>(i), destination[i]);
    }
  }
}

void TokenFile::read_mask(std::int64_t first, std::span<std::uint8_t> destination) const {
  LS_ASSERT(mask_.has_value());
  verify(first, static_cast<std::int64_t>(destination.size()));
  mask_->read(first, static_cast<std::int64_t>(destination.size()), destination.data());
}

std::string TokenFile::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const auto id : ids) {
    if (id >= 0 && id < token_bytes_.size()) {
      text += token_bytes_[id];
    }
  }
  return text;
}

std::vector<std::int32_t> TokenFile::encode_prompt(const std::string& text) const {
  if (text.empty()) {
    throw_bad_config("a prompt is empty; give it the text to continue");
  }
  if (auto ids = prompts_.find(text)) {
    return *std::move(ids);
  }
  if (tokenizer_ == "bytes") {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
    return {bytes, bytes + text.size()};
  }
  throw_bad_input(path().string() + " does not hold the prompt \"" + text +
                  "\"; prepare the set with --prompt TEXT, or give generate --ids the output of " +
                  "scripts/encode_prompt.py");
}

}  // namespace lorascale::data
