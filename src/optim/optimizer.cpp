#include "optim/optimizer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "base/error.hpp"
#include "optim/lamb.hpp"
#include "optim/trust_ratio.hpp"

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
      const auto part = [&](const at::Tensor& flat) {
        return flat.narrow(0, segment.begin, segment.end - segment.begin);
      };
      at::_fused_adamw_({part(parameters)}, {part(gradient)}, {part(first_)}, {part(second_)}, {},
                        {updates_}, hyper.lr * segment.lr_ratio, hyper.beta1, hyper.beta2,
                        segment.decays ? hyper.weight_decay : 0.0, hyper.eps, /*amsgrad=*/false,
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

// LARS too: the trust ratio is of the gradient alone, before decay is added to it.
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
      const auto part = [&](const at::Tensor& flat) {
        return flat.narrow(0, segment.begin, segment.end - segment.begin);
      };
      at::Tensor p = part(parameters);
      at::Tensor g = part(gradient);
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
      at::Tensor m = part(momentum_);
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

GradientFacts gradient_facts(const at::Tensor& gradient_sum, const at::Tensor& count,
                             double clip_norm) {
  // The norm in fp64: sums of squares of millions of elements, the same to the last digits for any
  // split.
  const at::Tensor norm =
      at::linalg_vector_norm(gradient_sum, 2, std::nullopt, false, at::kDouble) / count;
  at::Tensor divisor = count;
  if (clip_norm > 0) {
    divisor = count * ((norm + 1e-6) / clip_norm).clamp_min(1.0);
  }
  const at::Tensor finite = norm.isfinite();
  return {at::where(finite, divisor, 1.0).to(at::kFloat), finite.logical_not().to(at::kFloat),
          norm.to(at::kFloat)};
}

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, std::vector<Segment> segments,
                                          const at::Tensor& parameters) {
  if (name == "adamw") {
    return std::make_unique<AdamW>(std::move(segments), parameters);
  }
  if (name == "lamb") {
    return make_lamb(std::move(segments), parameters);
  }
  if (name == "sgd") {
    for (auto& segment : segments) {
      segment.trust = 0;
    }
  }
  if (name == "sgd" || name == "lars") {
    return std::make_unique<Sgd>(std::move(segments), parameters);
  }
  throw_bad_config("optimizer.name: '" + name +
                   "' is unknown; there are adamw, sgd, lamb and lars");
}

}  // namespace lorascale::optim
