// cache: what of a model is frozen, computed for all samples before any training.
#include <fmt/format.h>

#include <array>
#include <iostream>
#include <span>

#include "base/units.hpp"
#include "cli/common.hpp"
#include "train/cache_filling.hpp"
#include "train/data_preparation.hpp"
#include "train/signals.hpp"

namespace lorascale::cli {

ExitCode run_cache(const Arguments& arguments) {
  const auto values = parse(arguments, config_options(), config_position());
  take_stop_requests();
  Job job;
  const auto loaded = job.configure(values, config::Purpose::kTraining);
  auto& world = job.world();
  const auto files = train::prepare_data(world, loaded.config);
  auto session = train::open_session(world, loaded.config, files);
  const auto report = train::fill_caches(world, session);
  std::array<std::int64_t, 3> sums = {report.looked_at, report.made,
                                      train::stop_was_requested() ? 1 : 0};
  world.host.all_reduce(std::span(sums));
  if (job.rank() == 0) {
    const auto unit = session.workload->words().unit;
    if (report.folders.empty()) {
      std::cout << "cache     nothing of this run is computed once for all and kept on disk\n";
    } else {
      std::cout << fmt::format("cache     {}, {} made now\n", counted(sums[0], unit),
                               counted(sums[1], "value"));
    }
    for (const auto& folder : report.folders) {
      std::cout << "          " << folder << "\n";
    }
    if (sums[2] > 0) {
      std::cout << "stopped on request; run it again to go on\n";
    }
  }
  return sums[2] > 0 ? ExitCode::kStopped : ExitCode::kDone;
}

}  // namespace lorascale::cli
