#include "train/results.hpp"

#include <string>

#include "train/averaged_weights.hpp"
#include "train/vote.hpp"

namespace lorascale::train {

void Results::write(const std::filesystem::path& folder, Tolerance* tolerance) {
  const auto& session = run_.session;
  write_alone(run_, tolerance,
              [&] { session.adapter->write(folder, session.workload->export_context()); });
}

void Results::write_best() {
  write(run_.folder / "best", &best_writes_);
}

void Results::write_final() {
  const auto& session = run_.session;
  const std::string name(session.adapter->result_name());
  bool differs = false;
  {
    const AveragedWeights averaged(session.optimizer->average(), session.parameters());
    differs = averaged.in_place();
    write(run_.folder / name, nullptr);
  }
  if (differs) {
    write(run_.folder / (name + "-last"), nullptr);
  } else if (session.optimizer->average() != nullptr) {
    run_.record.say(spdlog::level::warn, "the run ended before average.start: " + name +
                                             "/ holds the last weights, no average");
  }
}

void Results::require_best() {
  root_alone(run_.world.host, [&] {
    if (best_writes_.lost) {
      throw Error(*best_writes_.lost);
    }
  });
}

}  // namespace lorascale::train
