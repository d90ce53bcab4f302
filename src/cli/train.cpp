#include <spdlog/spdlog.h>

#include "cli/common.hpp"
#include "train/data_preparation.hpp"
#include "train/session.hpp"
#include "train/trainer.hpp"

namespace lorascale::cli {

ExitCode run_train(const Arguments& arguments) {
  const auto values = parse(arguments, config_options(), config_position());
  take_stop_requests();
  Job job;
  const auto loaded = job.configure(values, config::Purpose::kTraining);
  if (job.rank() == 0) {
    for (const auto& note : loaded.notes) {
      spdlog::info("{}", note);
    }
  }
  const auto files = train::prepare_data(job.world(), loaded.config);
  auto session = train::open_session(job.world(), loaded.config, files);
  train::Trainer trainer(job.world(), session);
  return trainer.run(job.watchdog());
}

}  // namespace lorascale::cli
