// When a run shows what its model makes, and where that goes: samples/ and TensorBoard.
#pragma once

#include <string>

#include "train/run.hpp"

namespace lorascale::train {

class Samples {
 public:
  explicit Samples(Run& run)
      : run_(run), cadence_(run.session.config.sample.every, run.session.units) {}

  [[nodiscard]] bool due(const coordinator::Progress& before,
                         const coordinator::Progress& after) const {
    return cadence_.due(before, after);
  }
  // `when` begins the names of the files. Collective; rank 0 works.
  void show(const std::string& when);

 private:
  Run& run_;
  coordinator::Cadence cadence_;
};

}  // namespace lorascale::train
