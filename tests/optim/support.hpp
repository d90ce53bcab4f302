// The optimizers again, element by element in fp64, from their papers' formulas.
#pragma once

#include <cmath>
#include <vector>

#include "optim/optimizer.hpp"

namespace lorascale::optim {

struct ScalarAdamW {
  double p = 0, m = 0, v = 0;
  int t = 0;
  // Loshchilov & Hutter 2019, algorithm 2, with the rate on the decay as torch has it.
  void step(double g, double lr, double decay, const Hyperparameters& h) {
    ++t;
    p -= lr * decay * p;
    m = h.beta1 * m + (1 - h.beta1) * g;
    v = h.beta2 * v + (1 - h.beta2) * g * g;
    const double mean = m / (1 - std::pow(h.beta1, t));
    const double square = v / (1 - std::pow(h.beta2, t));
    p -= lr * mean / (std::sqrt(square) + h.eps);
  }
};

struct ScalarSgd {
  double p = 0, m = 0;
  void step(double g, double lr, double decay, const Hyperparameters& h) {
    m = h.beta1 * m + g + decay * p;
    p -= lr * m;
  }
};

inline at::Tensor scalar64(double value) {
  return at::full({}, value, at::kDouble);
}

inline at::Tensor state_of(const Optimizer& optimizer, const std::string& name) {
  for (const auto& [key, tensor] : optimizer.state()) {
    if (key == name) {
      return tensor;
    }
  }
  return {};
}

}  // namespace lorascale::optim
