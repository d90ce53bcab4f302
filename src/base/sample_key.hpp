// Randomness that belongs to a sample: every number is a pure function of (seed, epoch, sample id,
// draw, place), so that it is the same in any micro-batch, on any rank and in any replay. A draw is
// one use of randomness: the dropout of one layer, the crop of a picture.
#pragma once

#include <cstdint>

#include "base/rng.hpp"

namespace lorascale {

// Draws up to here are layers' (an adapter numbers its modules); those of data sets lie above.
inline constexpr std::uint32_t kFirstDataDraw = 0x80000000U;

struct SampleKey {
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;

  // The stream of one sample and draw: block `place` of it. Cheap; the key is mixed once.
  class Stream {
   public:
    Stream(const SampleKey& key, std::int64_t sample, std::uint32_t draw)
        : key_(philox_key(mix64(key.seed ^ mix64(static_cast<std::uint64_t>(key.epoch))))),
          sample_(static_cast<std::uint64_t>(sample)),
          draw_(draw) {}
    [[nodiscard]] PhiloxBlock block(std::uint32_t place) const {
      return philox4x32({place, draw_, static_cast<std::uint32_t>(sample_),
                         static_cast<std::uint32_t>(sample_ >> 32)},
                        key_);
    }

   private:
    std::array<std::uint32_t, 2> key_;
    std::uint64_t sample_;
    std::uint32_t draw_;
  };
  [[nodiscard]] Stream stream(std::int64_t sample, std::uint32_t draw) const {
    return {*this, sample, draw};
  }
};

}  // namespace lorascale
