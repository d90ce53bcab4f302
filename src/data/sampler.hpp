// The order of an epoch: position -> row by a keyed bijection, in O(1) memory and without state, so
// that any rank, world size or resumed run agrees on it. A Feistel network over the next power of
// four, with cycle walking.
#pragma once

#include <array>
#include <cstdint>

namespace lorascale::data {

class EpochOrder {
 public:
  // A permutation of [0, rows) that depends on (seed, epoch) only. rows >= 1.
  EpochOrder(std::int64_t rows, std::uint64_t seed, std::int64_t epoch);
  [[nodiscard]] std::int64_t row_at(std::int64_t position) const;

 private:
  static constexpr int kRounds = 8;
  [[nodiscard]] std::uint64_t permute(std::uint64_t value) const;

  std::uint64_t rows_;
  int half_bits_ = 1;
  std::array<std::uint64_t, kRounds> keys_{};
};

}  // namespace lorascale::data
