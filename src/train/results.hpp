// The results of a run in its folder: best/, and adapter/ or model/ when it ends. What is written
// is the average of the weights, where one is kept.
#pragma once

#include <filesystem>

#include "train/checkpointer.hpp"

namespace lorascale::train {

class Results {
 public:
  explicit Results(Run& run) : run_(run) {}

  // The weights as they are now, which are the best so far. Collective, as all are.
  void write_best();
  // At the end: the average where there is one, and then what was trained last beside it.
  void write_final();
  // Throws where best/ could not be written and is not what it should be.
  void require_best();

 private:
  void write(const std::filesystem::path& folder, Tolerance* tolerance);

  Run& run_;
  Tolerance best_writes_;
};

}  // namespace lorascale::train
