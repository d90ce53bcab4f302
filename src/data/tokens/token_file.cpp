#include "data/tokens/token_file.hpp"

#include <zlib.h>

#include <algorithm>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "base/heartbeat.hpp"
#include "data/tokens/token_header.hpp"

namespace lorascale::data {
namespace {

constexpr std::int64_t kDefaultBlock = 262144;
// What of an array without checksums enters the fingerprint: this many evenly spaced pieces.
constexpr std::uint64_t kSamples = 16;
constexpr std::uint64_t kSampledElements = 65536;

std::uint32_t crc_of(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(
      crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

template <typename T>
std::vector<T> read_whole(const io::Hdf5Dataset& dataset) {
  std::vector<T> values(dataset.size());
  dataset.read(0, dataset.size(), values.data());
  return values;
}

}  // namespace

TokenFile::TokenFile(std::filesystem::path path, std::int64_t vocabulary)
    : path_(std::move(path)),
      vocabulary_(vocabulary),
      raw_(io::open_for_reading(path_)),
      file_(std::make_unique<io::Hdf5File>(path_)) {
  const auto& file = *file_;
  const std::string name = path_.string();
  const auto header = read_token_header(file, path_);
  tokenizer_ = header.tokenizer;
  eos_id_ = header.eos_id;
  answer_end_id_ = header.answer_end_id;
  tokens_.emplace(file.dataset("/tokens", {io::Hdf5Type::kUint16, io::Hdf5Type::kUint32}));
  read_offsets(file);
  if (file.has("/loss_mask")) {
    mask_.emplace(file.dataset("/loss_mask", {io::Hdf5Type::kUint8}));
    if (mask_->size() != tokens_->size()) {
      throw_bad_input(name + ": /loss_mask has " + std::to_string(mask_->size()) + " entries for " +
                      std::to_string(tokens_->size()) + " tokens; make the file again");
    }
  }
  read_checksums(file);
  token_bytes_ = ByteTable::read(file, "/vocabulary");
  prompts_ = PromptTable::read(file, vocabulary);
  const auto blocks = static_cast<std::size_t>((tokens() + block_ - 1) / block_);
  verified_ = std::make_unique<std::atomic<bool>[]>(blocks);
  if (header.vocabulary > vocabulary) {
    // A tokenizer may know more tokens than the model, a pad token say. What matters is that none
    // of them is here, and that is better known now than when it is come to.
    for (std::int64_t first = 0; first < tokens(); first += block_) {
      beat("looking through the data set");
      verify_blocks(first, std::min(block_, tokens() - first));
    }
  }
  Sha256 hash;
  hash.update("tokens:" + std::to_string(tokens()) + ":" + tokenizer_ + ":");
  hash.update(std::as_bytes(std::span(offsets_)));
  hash.update(std::as_bytes(std::span(token_checks_)));
  hash.update(std::as_bytes(std::span(mask_checks_)));
  hash_samples(hash);
  fingerprint_ = hash.hex();
}

void TokenFile::hash_samples(Sha256& hash) const {
  const auto add = [&](const io::Hdf5Dataset& dataset, const std::vector<std::uint32_t>& checks) {
    if (!checks.empty()) {
      return;  // the checksums stand for all of it
    }
    const auto count = std::min(dataset.size(), kSampledElements);
    const auto last = dataset.size() - count;
    std::vector<std::byte> values(count * io::size_of(dataset.type()));
    for (std::uint64_t i = 0; i < (last == 0 ? 1 : kSamples); ++i) {
      read_raw(dataset, last / (kSamples - 1) * i, count, values.data());
      hash.update(std::span<const std::byte>(values));
    }
  };
  add(*tokens_, token_checks_);
  if (mask_) {
    add(*mask_, mask_checks_);
  }
}

void TokenFile::read_offsets(const io::Hdf5File& file) {
  const auto dataset = file.dataset("/offsets", {io::Hdf5Type::kInt64});
  offsets_ = read_whole<std::int64_t>(dataset);
  const std::string where = path_.string() + ": /offsets";
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
}

void TokenFile::read_checksums(const io::Hdf5File& file) {
  block_ = file.integer_attribute("checks_block").value_or(kDefaultBlock);
  if (block_ < 1 || block_ > (std::int64_t{1} << 30)) {
    throw_bad_input(path_.string() + ": attribute checks_block is " + std::to_string(block_) +
                    "; it must be positive");
  }
  const auto blocks = static_cast<std::uint64_t>((tokens() + block_ - 1) / block_);
  const auto read = [&](const char* name, std::vector<std::uint32_t>& checks,
                        std::uint64_t expected) {
    if (!file.has("/checks") || !file.has(name)) {
      return;
    }
    const auto dataset = file.dataset(name, {io::Hdf5Type::kUint32});
    if (dataset.size() != expected) {
      throw_bad_input(path_.string() + ": " + name + " has " + std::to_string(dataset.size()) +
                      " entries instead of " + std::to_string(expected));
    }
    checks = read_whole<std::uint32_t>(dataset);
  };
  read("/checks/tokens", token_checks_, blocks);
  if (mask_) {
    read("/checks/loss_mask", mask_checks_, blocks);
  }
  std::vector<std::uint32_t> offset_check;
  read("/checks/offsets", offset_check, 1);
  if (!offset_check.empty() && offset_check[0] != crc_of(std::as_bytes(std::span(offsets_)))) {
    throw_bad_input(path_.string() +
                    ": /offsets does not match its checksum; the file is damaged: make it "
                    "again (where train prepared it: delete its folder)");
  }
}

void TokenFile::read_raw(const io::Hdf5Dataset& dataset, std::uint64_t first, std::uint64_t count,
                         void* destination) const {
  if (const auto offset = dataset.raw_offset()) {
    const auto width = io::size_of(dataset.type());
    io::read_exactly(raw_.descriptor, *offset + first * width,
                     {static_cast<std::byte*>(destination), count * width}, path_);
  } else {
    dataset.read(first, count, destination);
  }
}

void TokenFile::refuse_token(std::int64_t index, std::int64_t id) const {
  const auto after = std::upper_bound(offsets_.begin(), offsets_.end(), index);
  const auto document = after - offsets_.begin() - 1;
  throw_bad_input(path_.string() + ": document " + std::to_string(document) + ", token " +
                  std::to_string(index - offsets_[static_cast<std::size_t>(document)]) + " is id " +
                  std::to_string(id) + ", but the model's vocabulary ends at " +
                  std::to_string(vocabulary_ - 1) +
                  "; prepare it with this model's tokenizer, or without a token that was added to "
                  "it, for new tokens cannot be trained yet");
}

void TokenFile::check_block(const std::vector<std::uint32_t>& checks, std::int64_t block,
                            std::span<const std::byte> bytes, const char* name) const {
  if (!checks.empty() && checks[static_cast<std::size_t>(block)] != crc_of(bytes)) {
    throw_bad_input(path_.string() + ": block " + std::to_string(block) + " of " + name +
                    " does not match its checksum; the file is damaged: make it "
                    "again (where train prepared it: delete its folder)");
  }
}

void TokenFile::verify_block(std::int64_t block) const {
  const auto first = block * block_;
  const auto count = std::min(block_, tokens() - first);
  const auto scan = [&]<typename T>(T) {
    std::vector<T> values(static_cast<std::size_t>(count));
    read_raw(*tokens_, static_cast<std::uint64_t>(first), static_cast<std::uint64_t>(count),
             values.data());
    check_block(token_checks_, block, std::as_bytes(std::span(values)), "/tokens");
    const auto largest = std::max_element(values.begin(), values.end());
    if (static_cast<std::int64_t>(*largest) >= vocabulary_) {
      refuse_token(first + (largest - values.begin()), static_cast<std::int64_t>(*largest));
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
  const auto first = block * block_;
  std::vector<std::uint8_t> values(static_cast<std::size_t>(std::min(block_, tokens() - first)));
  read_raw(*mask_, static_cast<std::uint64_t>(first), values.size(), values.data());
  check_block(mask_checks_, block, std::as_bytes(std::span(values)), "/loss_mask");
  const auto wrong =
      std::find_if(values.begin(), values.end(), [](std::uint8_t value) { return value > 1; });
  if (wrong != values.end()) {
    throw_bad_input(path_.string() + ": /loss_mask holds " + std::to_string(*wrong) + " at token " +
                    std::to_string(first + (wrong - values.begin())) +
                    "; only 0 and 1 have a meaning");
  }
  return values;
}

void TokenFile::verify_blocks(std::int64_t first, std::int64_t count) const {
  LS_ASSERT(first >= 0 && count >= 0 && first + count <= tokens());
  for (auto block = first / block_; block * block_ < first + count; ++block) {
    auto& done = verified_[static_cast<std::size_t>(block)];
    if (!done.load(std::memory_order_acquire)) {
      verify_block(block);  // twice at worst, by two threads
      done.store(true, std::memory_order_release);
    }
  }
}

void TokenFile::read_tokens(std::int64_t first, std::span<std::int32_t> destination) const {
  const auto count = static_cast<std::int64_t>(destination.size());
  verify_blocks(first, count);
  const auto convert = [&]<typename T>(T) {
    std::vector<T> values(destination.size());
    read_raw(*tokens_, static_cast<std::uint64_t>(first), values.size(), values.data());
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
  verify_blocks(first, static_cast<std::int64_t>(destination.size()));
  read_raw(*mask_, static_cast<std::uint64_t>(first), destination.size(), destination.data());
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
  throw_bad_input(path_.string() + " does not hold the prompt \"" + text +
                  "\"; prepare the set with --prompt TEXT, or give generate --ids the output of " +
                  "scripts/encode_prompt.py");
}

}  // namespace lorascale::data
