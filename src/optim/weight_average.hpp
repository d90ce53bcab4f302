// An average of the trained weights, kept by an optimizer around another one: one more flat fp32
// vector, updated after each applied update and saved with the rest of the state. Incremental, so
// the weights that training began with have no share in it: average += (w - average) add / mass',
// mass' = keep mass + add. With keep = rho and add = 1 - rho that is the moving average, its bias
// corrected; with keep = add = 1 it is the equal mean (SWA, Izmailov et al. 2018).
#pragma once

#include <memory>
#include <vector>

#include "optim/optimizer.hpp"

namespace lorascale::optim {

class WeightAverage : public Optimizer {
 public:
  WeightAverage(std::unique_ptr<Optimizer> inner, const at::Tensor& parameters);

  WeightAverage* average() override { return this; }
  void step(at::Tensor& parameters, at::Tensor& gradient, const Hyperparameters& hyper,
            const GradientFacts& facts) override;
  [[nodiscard]] at::Tensor metric(const Hyperparameters& hyper) const override {
    return inner_->metric(hyper);
  }
  [[nodiscard]] std::vector<NamedTensor> state() const override;

  // Whether any update has taken part; before, the average means nothing. Waits for the device.
  [[nodiscard]] bool begun() const;
  // Parameters and average change places, bit for bit; twice is nothing. Not to be stepped or saved
  // in between. `scratch`, of their size, is overwritten.
  void exchange(at::Tensor& parameters, at::Tensor& scratch);

 private:
  std::unique_ptr<Optimizer> inner_;
  at::Tensor average_;  // like the parameters
  at::Tensor mass_;     // fp32 scalar; 0: nothing averaged yet
};

}  // namespace lorascale::optim
