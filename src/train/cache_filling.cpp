#include "train/cache_filling.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include "base/units.hpp"
#include "train/signals.hpp"

namespace lorascale::train {

workloads::CacheReport fill_caches(World& world, Session& session) {
  const auto report = session.workload->fill_caches(
      {world.host.rank(), world.host.size(), [] { return stop_was_requested(); }});
  if (report.made > 0) {
    spdlog::info("{}: {} made on rank {}, of {}", fmt::join(report.folders, ", "),
                 counted(report.made, "value"), world.host.rank(),
                 counted(report.looked_at, session.workload->words().unit));
  }
  return report;
}

}  // namespace lorascale::train
