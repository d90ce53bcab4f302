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
  // When the run has ended and its results are written: what the preview has to show once, and its
  // numbers for the advisor. What fails here is a warning. Collective; rank 0 works.
  void show_last();

 private:
  // Into samples/ and TensorBoard; `file` is its name without what it ends with.
  void write(const workloads::Preview::Item& item, const std::string& file);
  void tell_out_of_memory();

  Run& run_;
  coordinator::Cadence cadence_;
};

}  // namespace lorascale::train
