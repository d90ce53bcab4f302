#include "optim/lamb.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/div.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "optim/trust_ratio.hpp"

namespace lorascale::optim {
namespace {

class Lamb : public Optimizer {
 public:
  Lamb(std::vector<Segment> segments, const at::Tensor& parameters)
      : segments_(std::move(segments)),
        first_(at::zeros_like(parameters)),
        second_(at::zeros_like(parameters)),
        updates_(at::zeros({}, parameters.options())) {
    for (const auto& segment : segments_) {
      trust_.emplace_back(segment, parameters.device());
    }
  }

  void step(at::Tensor& parameters, at::Tensor& gradient, const Hyperparameters& hyper,
            const GradientFacts& facts) override {
    updates_.add_(1 - facts.skip);
    const at::Tensor skip = facts.skip > 0;
    // Not by a factor of zero, which would neither remove NaN nor keep the sign of -0.
    const auto unless_skipped = [&](at::Tensor& target, const at::Tensor& value) {
      at::where_out(target, skip, target, value);
    };
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      const auto& segment = segments_[i];
      at::Tensor p = segment.of(parameters);
      at::Tensor g = segment.of(gradient);
      at::Tensor m = segment.of(first_);
      at::Tensor v = segment.of(second_);
      g.div_(facts.divisor).nan_to_num_(0.0, 0.0, 0.0);
      unless_skipped(m, (m * hyper.beta1).add_(g, 1 - hyper.beta1));
      unless_skipped(v, (v * hyper.beta2).addcmul_(g, g, 1 - hyper.beta2));
      at::Tensor direction = denominator(v, hyper);
      at::div_out(direction, m, direction);
      direction.div_(correction(hyper.beta1));
      if (segment.decays && hyper.weight_decay != 0) {
        direction.add_(p, hyper.weight_decay);
      }
      if (trust_[i].applies()) {
        // The decay is in the direction already.
        direction.mul_(trust_[i].factors(direction, p, 0.0));
      }
      unless_skipped(p, direction.mul_(-hyper.lr * segment.lr_ratio).add_(p));
    }
  }
  [[nodiscard]] at::Tensor metric(const Hyperparameters& hyper) const override {
    return denominator(second_, hyper);
  }
  [[nodiscard]] std::vector<NamedTensor> state() const override {
    return {{"exp_avg", first_}, {"exp_avg_sq", second_}, {"updates", updates_}};
  }

 private:
  // 1 - beta^t, in fp64: in fp32 a beta near 1 leaves few digits of it.
  [[nodiscard]] at::Tensor correction(double beta) const {
    return 1 - at::pow(beta, updates_.to(at::kDouble));
  }
  [[nodiscard]] at::Tensor denominator(const at::Tensor& second,
                                       const Hyperparameters& hyper) const {
    return (second / correction(hyper.beta2)).sqrt_().add_(hyper.eps);
  }

  std::vector<Segment> segments_;
  std::vector<TrustRatio> trust_;  // of each segment
  at::Tensor first_, second_;      // moments, like the parameters
  at::Tensor updates_;             // fp32 scalar
};

}  // namespace

std::unique_ptr<Optimizer> make_lamb(std::vector<Segment> segments, const at::Tensor& parameters) {
  return std::make_unique<Lamb>(std::move(segments), parameters);
}

}  // namespace lorascale::optim
