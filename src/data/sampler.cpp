#include "data/sampler.hpp"

#include "base/error.hpp"
#include "base/rng.hpp"

namespace lorascale::data {

EpochOrder::EpochOrder(std::int64_t rows, std::uint64_t seed, std::int64_t epoch)
    : rows_(static_cast<std::uint64_t>(rows)) {
  LS_ASSERT(rows >= 1 && epoch >= 0);
  while ((std::uint64_t{1} << (2 * half_bits_)) < rows_) {
    ++half_bits_;
  }
  std::uint64_t key = mix64(seed ^ mix64(static_cast<std::uint64_t>(epoch) + 0x6F72646572ULL));
  for (auto& round_key : keys_) {
    round_key = key = mix64(key);
  }
}

std::uint64_t EpochOrder::permute(std::uint64_t value) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_;
  std::uint64_t right = value & mask;
  for (const auto key : keys_) {
    const std::uint64_t next = left ^ (mix64(right ^ key) & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

std::int64_t EpochOrder::row_at(std::int64_t position) const {
  LS_ASSERT(position >= 0 && static_cast<std::uint64_t>(position) < rows_);
  auto value = static_cast<std::uint64_t>(position);
  do {  // the network permutes a set less than four times as large: leave it where it steps outside
    value = permute(value);
  } while (value >= rows_);
  return static_cast<std::int64_t>(value);
}

}  // namespace lorascale::data
