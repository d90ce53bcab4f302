#include <spdlog/spdlog.h>

#include <utility>

#include "cli/common.hpp"
#include "cli/go_on_options.hpp"
#include "train/data_preparation.hpp"
#include "train/go_on.hpp"
#include "train/session.hpp"
#include "train/trainer.hpp"

namespace lorascale::cli {
namespace {

// The run's own folder becomes the source, and `into` the folder of what follows.
void redirect(const std::string& into, config::RunConfig& config, train::GoOn& wish) {
  const std::filesystem::path source = config.run.output_dir;
  std::error_code ignored;
  if (std::filesystem::weakly_canonical(source, ignored) ==
      std::filesystem::weakly_canonical(into, ignored)) {
    throw Error(ExitCode::kUsage, "--into names run.output_dir itself; name another folder");
  }
  wish.source = source;
  config.run.output_dir = into;
}

}  // namespace

ExitCode run_train(const Arguments& arguments) {
  auto description = config_options();
  add_go_on_options(description);
  const auto values = parse(arguments, description, config_position());
  auto wish = go_on_of(values);
  // From here on a request to stop is kept, whatever the run is at: it ends after one update.
  take_stop_requests();
  Job job;
  auto loaded = job.configure(values, config::Purpose::kTraining);
  if (job.rank() == 0) {
    for (const auto& note : loaded.notes) {
      spdlog::info("{}", note);
    }
  }
  // What the source prepared beside its own folder serves the fork.
  const auto files = train::prepare_data(job.world(), loaded.config);
  if (values.count("into") != 0) {
    redirect(values["into"].as<std::string>(), loaded.config, wish);
  }
  auto session = train::open_session(job.world(), loaded.config, files);
  train::Trainer trainer(job.world(), session, std::move(wish));
  return trainer.run(job.watchdog());
}

}  // namespace lorascale::cli
