// What people who train LoRAs for Stable Diffusion have found to work, as checks of a run's
// settings: for models of the real sizes, of which the experience is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lorascale::workloads::diffusion {

struct TrainingFacts {
  std::int64_t pictures = 0;
  std::optional<double> samples;  // of the whole run; absent: it is not known beforehand
  std::int64_t side = 0;          // pixels: root of the area of most pictures
  std::int64_t usual_side = 512;  // of what the model was made for
  bool adapter = true;            // not all weights
  bool adam = true;               // its rate is one of Adam's kind
  double rate = 1e-4;             // at its own batch
  std::int64_t rank = 16;         // of the adapter
};

// A line for each setting that is out of what is usual, with what is.
std::vector<std::string> unusual_settings(const TrainingFacts& facts);

}  // namespace lorascale::workloads::diffusion
