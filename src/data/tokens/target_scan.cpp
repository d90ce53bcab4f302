#include "data/tokens/target_scan.hpp"

#include <algorithm>
#include <numeric>

#include "base/heartbeat.hpp"

namespace lorascale::data {

std::int64_t TargetScan::count(std::int64_t begin, std::int64_t end) {
  const auto size = dataset_.block_size();
  std::int64_t targets = 0;
  for (auto at = begin; at < end;) {
    if (block_ != at / size) {
      beat("reading the loss mask");
      mask_ = dataset_.checked_mask(at / size);
      block_ = at / size;
    }
    const auto first = block_ * size;
    const auto stop = std::min(end, first + size);
    targets += std::accumulate(mask_.begin() + (at - first), mask_.begin() + (stop - first),
                               std::int64_t{0});
    at = stop;
  }
  return targets;
}

}  // namespace lorascale::data
