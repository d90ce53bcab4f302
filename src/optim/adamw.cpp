#include "optim/adamw.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

namespace lorascale::optim {
namespace {

class AdamW : public Optimizer {
 public:
  AdamW(std::vector<Segment> segments, const at::Tensor& parameters)
      : segments_(std::move(segments)),
        first_(at::zeros_like(parameters)),
        second_(at::zeros_like(parameters)),
        updates_(at::zeros({}, parameters.options())) {}

  void step(at::Tensor& parameters, at::Tensor& gradient, const Hyperparameters& hyper,
            const GradientFacts& facts) override {
    // Counts applied updates only, without asking the device.
    updates_.add_(1 - facts.skip);
    for (const auto& segment : segments_) {
      at::_fused_adamw_({segment.of(parameters)}, {segment.of(gradient)}, {segment.of(first_)},
                        {segment.of(second_)}, {}, {updates_}, hyper.lr * segment.lr_ratio,
                        hyper.beta1, hyper.beta2, segment.decays ? hyper.weight_decay : 0.0,
                        hyper.eps, /*amsgrad=*/false,
                        /*maximize=*/false, facts.divisor, facts.skip);
    }
  }
  [[nodiscard]] at::Tensor metric(const Hyperparameters& hyper) const override {
    const at::Tensor correction = 1 - at::pow(hyper.beta2, updates_);
    return (second_ / correction).sqrt_().add_(hyper.eps);
  }
  [[nodiscard]] std::vector<NamedTensor> state() const override {
    return {{"exp_avg", first_}, {"exp_avg_sq", second_}, {"updates", updates_}};
  }

 private:
  std::vector<Segment> segments_;
  at::Tensor first_, second_;  // moments, like the parameters
  at::Tensor updates_;         // fp32 scalar
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(std::vector<Segment> segments, const at::Tensor& parameters) {
  return std::make_unique<AdamW>(std::move(segments), parameters);
}

}  // namespace lorascale::optim
