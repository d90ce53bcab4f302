// The monitors of a run, in the order in which they see the facts and in which their reasons to
// stop count.
#pragma once

#include <vector>

#include "coordinator/divergence.hpp"
#include "coordinator/monitor.hpp"
#include "coordinator/noise/adascale.hpp"
#include "coordinator/noise/noise_monitor.hpp"
#include "coordinator/recipe.hpp"
#include "coordinator/validation.hpp"

namespace lorascale::coordinator {

struct Monitors {
  explicit Monitors(const Recipe& recipe)
      : divergence(recipe),
        validation(recipe),
        noise(recipe),
        adascale(recipe, noise),
        with_noise(recipe.noise_horizon_samples > 0),
        with_adascale(follows_gain(recipe)) {}
  Monitors(const Monitors&) = delete;  // adascale refers to noise
  Monitors& operator=(const Monitors&) = delete;

  DivergenceDetector divergence;
  ValidationTracker validation;
  NoiseMonitor noise;
  AdaScale adascale;

  // Those that the recipe asks for; the others see nothing and have no state.
  std::vector<Monitor*> all() { return listed<Monitor>(*this); }
  [[nodiscard]] std::vector<const Monitor*> all() const { return listed<const Monitor>(*this); }

 private:
  template <typename Base, typename Self>
  static std::vector<Base*> listed(Self& self) {
    std::vector<Base*> monitors = {&self.divergence, &self.validation};
    if (self.with_noise) {
      monitors.push_back(&self.noise);
    }
    if (self.with_adascale) {
      monitors.push_back(&self.adascale);
    }
    return monitors;
  }

  bool with_noise = false;
  bool with_adascale = false;
};

}  // namespace lorascale::coordinator
