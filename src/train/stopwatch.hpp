// Time that passes on this rank, in milliseconds.
#pragma once

#include <chrono>

namespace lorascale::train {

class Stopwatch {
 public:
  // Since the last call, or since it was made.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double, std::milli> elapsed = now - last_;
    last_ = now;
    return elapsed.count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace lorascale::train
