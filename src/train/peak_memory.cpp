#include "train/peak_memory.hpp"

#include <spdlog/spdlog.h>

#include <array>
#include <vector>

#include "coordinator/memory/leaf_fit.hpp"

namespace lorascale::train {

void PeakMemory::report(World& world) {
  look();
  const std::array<double, 1> mine = {most_};
  std::vector<double> all(static_cast<std::size_t>(world.host.size()));
  world.host.all_gather(std::span<const double>(mine), std::span(all));
  if (world.is_root()) {
    const auto most = std::max_element(all.begin(), all.end());
    spdlog::info("memory of tensors at its peak: {} on rank {}", coordinator::mebibytes(*most),
                 most - all.begin());
  }
}

}  // namespace lorascale::train
