#include "optim/sgd.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "optim/trust_ratio.hpp"

namespace lorascale::optim {
namespace {

// The trust ratio is of the gradient alone, before decay is added to it.
class Sgd : public Optimizer {
 public:
  Sgd(std::vector<Segment> segments, const at::Tensor& parameters)
      : segments_(std::move(segments)), momentum_(at::zeros_like(parameters)) {
    for (const auto& segment : segments_) {
      trust_.emplace_back(segment, parameters.device());
    }
  }

  void step(at::Tensor& parameters, at::Tensor& gradient, const Hyperparameters& hyper,
            const GradientFacts& facts) override {
    for (std::size_t i = 0; i < segments_.size(); ++i) {
      const auto& segment = segments_[i];
      at::Tensor p = segment.of(parameters);
      at::Tensor g = segment.of(gradient);
      const double decay = segment.decays ? hyper.weight_decay : 0.0;
      // A skipped gradient may hold NaN, which no factor of zero removes.
      g.div_(facts.divisor).nan_to_num_(0.0, 0.0, 0.0);
      const at::Tensor ratios = trust_[i].applies() ? trust_[i].factors(g, p, decay) : at::Tensor();
      if (decay != 0) {
        g.add_(p, decay);
      }
      if (ratios.defined()) {
        g.mul_(ratios);
      }
      const at::Tensor skip = facts.skip > 0;
      at::Tensor m = segment.of(momentum_);
      m.copy_(at::where(skip, m, m * hyper.beta1 + g));
      // Not p - 0 * m: that would turn -0 into +0.
      p.copy_(at::where(skip, p, p - m * (hyper.lr * segment.lr_ratio)));
    }
  }
  [[nodiscard]] std::vector<NamedTensor> state() const override {
    return {{"momentum", momentum_}};
  }

 private:
  std::vector<Segment> segments_;
  std::vector<TrustRatio> trust_;  // of each segment
  at::Tensor momentum_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(std::vector<Segment> segments, const at::Tensor& parameters) {
  for (auto& segment : segments) {
    segment.trust = 0;
  }
  return make_lars(std::move(segments), parameters);
}

std::unique_ptr<Optimizer> make_lars(std::vector<Segment> segments, const at::Tensor& parameters) {
  return std::make_unique<Sgd>(std::move(segments), parameters);
}

}  // namespace lorascale::optim
