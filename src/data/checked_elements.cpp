#include "data/checked_elements.hpp"

#include <zlib.h>

#include <utility>

#include "base/error.hpp"

namespace lorascale::data {
namespace {

constexpr std::int64_t kDefaultBlock = 262144;
// What of an array without checks enters a fingerprint: this many evenly spaced pieces.
constexpr std::int64_t kSamples = 16;
constexpr std::int64_t kSampledElements = 65536;

std::uint32_t crc_of(std::span<const std::byte> bytes, std::uint32_t before = 0) {
  return static_cast<std::uint32_t>(
      crc32_z(before, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

}  // namespace

CheckedFile::CheckedFile(std::filesystem::path path, std::string maker)
    : path_(std::move(path)), raw_(io::open_for_reading(path_)), hdf5_(path_, std::move(maker)) {}

std::int64_t CheckedFile::block_size(std::int64_t largest) const {
  const auto size = hdf5_.integer_attribute("checks_block").value_or(kDefaultBlock);
  if (size < 1 || size > largest) {
    throw_bad_input(path_.string() + ": attribute checks_block is " + std::to_string(size) +
                    "; it must be positive" +
                    (size > 0 ? " and at most " + std::to_string(largest) : ""));
  }
  return size;
}

std::vector<std::uint32_t> CheckedFile::checks(const std::string& name,
                                               std::uint64_t expected) const {
  const std::string full = "/checks/" + name;
  if (!hdf5_.has("/checks") || !hdf5_.has(full)) {
    return {};
  }
  const auto dataset = hdf5_.dataset(full, {io::Hdf5Type::kUint32});
  if (dataset.size() != expected) {
    throw_bad_input(path_.string() + ": " + full + " has " + std::to_string(dataset.size()) +
                    " entries instead of " + std::to_string(expected));
  }
  std::vector<std::uint32_t> values(expected);
  dataset.read(0, expected, values.data());
  return values;
}

void CheckedFile::check_whole(const std::string& name,
                              std::initializer_list<std::span<const std::byte>> arrays) const {
  std::uint32_t crc = 0;
  for (const auto bytes : arrays) {
    crc = crc_of(bytes, crc);
  }
  const auto expected = checks(name, 1);
  if (!expected.empty() && expected[0] != crc) {
    refuse("/" + name);
  }
}

void CheckedFile::refuse(const std::string& what) const {
  throw_bad_input(path_.string() + ": " + what +
                  " does not match its checksum; the file is damaged: make it again (where train "
                  "prepared it: delete its folder)");
}

CheckedElements::CheckedElements(const CheckedFile& file, std::string name,
                                 const std::vector<io::Hdf5Type>& accepted, std::int64_t block_size)
    : file_(file),
      name_(std::move(name)),
      dataset_(file.hdf5().dataset("/" + name_, accepted)),
      block_size_(block_size) {
  const auto bytes = dataset_.size() * io::size_of(dataset_.type());
  const auto offset = dataset_.raw_offset().value_or(0);
  if (dataset_.raw_offset() && (bytes > file.raw_.bytes || offset > file.raw_.bytes - bytes)) {
    throw_bad_input(file.path().string() + ": /" + name_ +
                    " ends beyond the end of the file; it is damaged, make it again");
  }
  const auto blocks = (dataset_.size() + static_cast<std::uint64_t>(block_size) - 1) /
                      static_cast<std::uint64_t>(block_size);
  checks_ = file.checks(name_, blocks);
  passed_ = std::make_unique<std::atomic<bool>[]>(blocks);
}

void CheckedElements::read(std::int64_t first, std::int64_t count, void* destination) const {
  LS_ASSERT(first >= 0 && count >= 0 && first <= size() - count);
  const auto begin = static_cast<std::uint64_t>(first);
  const auto length = static_cast<std::uint64_t>(count);
  if (const auto offset = dataset_.raw_offset()) {
    const auto width = io::size_of(dataset_.type());
    io::read_exactly(file_.raw_.descriptor, *offset + begin * width,
                     {static_cast<std::byte*>(destination), length * width}, file_.path());
  } else {
    dataset_.read(begin, length, destination);
  }
}

void CheckedElements::compare(std::int64_t block, std::span<const std::byte> bytes) const {
  if (!checks_.empty() && checks_[static_cast<std::size_t>(block)] != crc_of(bytes)) {
    file_.refuse("block " + std::to_string(block) + " of /" + name_);
  }
}

void CheckedElements::at_first_touch(std::int64_t first, std::int64_t count,
                                     const std::function<void(std::int64_t)>& check) const {
  LS_ASSERT(first >= 0 && count >= 0 && first <= size() - count);
  for (auto block = first / block_size_; block * block_size_ < first + count; ++block) {
    auto& passed = passed_[static_cast<std::size_t>(block)];
    if (!passed.load(std::memory_order_acquire)) {
      check(block);
      passed.store(true, std::memory_order_release);
    }
  }
}

void CheckedElements::hash_checks(Sha256& hash) const {
  hash.update(std::as_bytes(std::span(checks_)));
}

void CheckedElements::hash_samples(Sha256& hash) const {
  if (!checks_.empty()) {
    return;  // they stand for all of it
  }
  const auto count = std::min(size(), kSampledElements);
  const auto last = size() - count;
  std::vector<std::byte> values(static_cast<std::size_t>(count) * io::size_of(dataset_.type()));
  for (std::int64_t i = 0; i < (last == 0 ? 1 : kSamples); ++i) {
    read(last / (kSamples - 1) * i, count, values.data());
    hash.update(std::span<const std::byte>(values));
  }
}

}  // namespace lorascale::data
