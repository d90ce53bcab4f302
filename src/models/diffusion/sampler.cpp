#include "models/diffusion/sampler.hpp"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.hpp"

namespace lorascale::models::diffusion {
namespace {

// From noise to picture.
std::vector<double> spaced(const NoiseSchedule& schedule, const SamplerSettings& settings) {
  const auto steps = schedule.steps(), count = settings.count;
  std::vector<double> times;
  for (std::int64_t i = 0; i < count; ++i) {
    switch (settings.spacing) {
      case Spacing::kLeading:
        times.push_back(static_cast<double>(
            std::min(steps - 1, (count - 1 - i) * (steps / count) + settings.offset)));
        break;
      case Spacing::kTrailing:
        times.push_back(std::nearbyint(static_cast<double>(steps) -
                                       static_cast<double>(i) * static_cast<double>(steps) /
                                           static_cast<double>(count)) -
                        1);
        break;
      case Spacing::kLinspace:
        times.push_back(count == 1
                            ? 0
                            : static_cast<double>(steps - 1) * static_cast<double>(count - 1 - i) /
                                  static_cast<double>(count - 1));
        break;
    }
  }
  return times;
}

class Ddim : public Sampler {
 public:
  Ddim(const NoiseSchedule& schedule, const SamplerSettings& settings)
      : schedule_(schedule), stride_(schedule.steps() / settings.count) {
    timesteps_ = spaced(schedule, settings);
    std::ranges::for_each(timesteps_, [](double& t) { t = std::nearbyint(t); });
  }

  [[nodiscard]] double initial_scale() const override { return 1; }
  [[nodiscard]] double input_scale(std::size_t /*i*/) const override { return 1; }

  at::Tensor step(std::size_t i, const at::Tensor& x, const at::Tensor& prediction,
                  const at::Tensor& /*noise*/) override {
    const auto t = static_cast<std::int64_t>(timesteps_[i]);
    const double signal = schedule_.signal(t), noise = schedule_.noise(t);
    const bool velocity = schedule_.settings().prediction == Prediction::kVelocity;
    const at::Tensor picture =
        velocity ? x * signal - prediction * noise : (x - prediction * noise) / signal;
    const at::Tensor epsilon = velocity ? prediction * signal + x * noise : prediction;
    // Before the first step stands that step itself, not a picture without noise: as in training.
    const auto before = std::max<std::int64_t>(0, t - stride_);
    return picture * schedule_.signal(before) + epsilon * schedule_.noise(before);
  }

 private:
  NoiseSchedule schedule_;
  std::int64_t stride_;
};

// Latents are x_0 + sigma e: those of training over signal(t).
class SigmaSampler : public Sampler {
 public:
  [[nodiscard]] double input_scale(std::size_t i) const override {
    return 1 / std::sqrt(sigmas_[i] * sigmas_[i] + 1);
  }

 protected:
  explicit SigmaSampler(const NoiseSchedule& schedule)
      : velocity_(schedule.settings().prediction == Prediction::kVelocity) {}

  // sigma at a time between steps; without signal a large one, as diffusers has it.
  static double sigma_at(const NoiseSchedule& schedule, double t) {
    constexpr double kLeastAlphaBar = 0x1p-24;
    const auto at = [&](std::int64_t step) {
      const double alpha_bar = std::max(schedule.alpha_bar(step), kLeastAlphaBar);
      return std::sqrt((1 - alpha_bar) / alpha_bar);
    };
    const auto low = static_cast<std::int64_t>(std::floor(t));
    const auto high = std::min(low + 1, schedule.steps() - 1);
    const double share = t - static_cast<double>(low);
    return (1 - share) * at(low) + share * at(high);
  }

  // What the model takes for the picture.
  [[nodiscard]] at::Tensor picture(std::size_t i, const at::Tensor& x,
                                   const at::Tensor& prediction) const {
    const double sigma = sigmas_[i], variance = sigma * sigma + 1;
    return velocity_ ? x / variance - prediction * (sigma / std::sqrt(variance))
                     : x - prediction * sigma;
  }

  std::vector<double> sigmas_;  // [count + 1], the last one 0

 private:
  bool velocity_;
};

class Euler : public SigmaSampler {
 public:
  Euler(const NoiseSchedule& schedule, const SamplerSettings& settings)
      : SigmaSampler(schedule),
        leading_(settings.spacing == Spacing::kLeading),
        ancestral_(settings.kind == SamplerKind::kEulerAncestral) {
    timesteps_ = spaced(schedule, settings);
    for (const double t : timesteps_) {
      sigmas_.push_back(sigma_at(schedule, t));
    }
    sigmas_.push_back(0);
  }

  [[nodiscard]] double initial_scale() const override {
    return leading_ ? std::sqrt(sigmas_[0] * sigmas_[0] + 1) : sigmas_[0];
  }
  [[nodiscard]] bool draws() const override { return ancestral_; }

  at::Tensor step(std::size_t i, const at::Tensor& x, const at::Tensor& prediction,
                  const at::Tensor& noise) override {
    const double from = sigmas_[i], to = sigmas_[i + 1];
    const at::Tensor direction = (x - picture(i, x, prediction)) / from;
    if (!ancestral_) {
      return x + direction * (to - from);
    }
    // Down below `to`, and up again by noise.
    const double up = std::sqrt(to * to * (from * from - to * to)) / from;
    const double down = std::sqrt(to * to - up * up);
    return x + direction * (down - from) + noise * up;
  }

 private:
  bool leading_;
  bool ancestral_;
};

class DpmPp2mKarras : public SigmaSampler {
 public:
  DpmPp2mKarras(const NoiseSchedule& schedule, const SamplerSettings& settings)
      : SigmaSampler(schedule) {
    constexpr double kRho = 7;
    const double largest =
        std::pow(sigma_at(schedule, static_cast<double>(schedule.steps() - 1)), 1 / kRho);
    const double least = std::pow(sigma_at(schedule, 0), 1 / kRho);
    for (std::int64_t i = 0; i < settings.count; ++i) {
      const double share = settings.count == 1
                               ? 0
                               : static_cast<double>(i) / static_cast<double>(settings.count - 1);
      sigmas_.push_back(std::pow(largest + share * (least - largest), kRho));
      timesteps_.push_back(std::nearbyint(time_of(schedule, sigmas_.back())));
    }
    sigmas_.push_back(0);
  }

  [[nodiscard]] double initial_scale() const override {
    return std::sqrt(sigmas_[0] * sigmas_[0] + 1);
  }

  at::Tensor step(std::size_t i, const at::Tensor& x, const at::Tensor& prediction,
                  const at::Tensor& /*noise*/) override {
    const at::Tensor now = picture(i, x, prediction);
    const double from = sigmas_[i], to = sigmas_[i + 1];
    const at::Tensor before = std::exchange(last_picture_, now);
    if (to == 0) {
      return now;
    }
    at::Tensor middle = now;
    if (i > 0) {
      const double ratio = std::log(sigmas_[i - 1] / from) / std::log(from / to);
      middle = now + (now - before) / (2 * ratio);
    }
    return x * (to / from) + middle * (1 - to / from);
  }

 private:
  // Where the schedule has this sigma, by log sigma between steps.
  static double time_of(const NoiseSchedule& schedule, double sigma) {
    std::int64_t low = 0;
    while (low + 2 < schedule.steps() &&
           sigma_at(schedule, static_cast<double>(low + 1)) <= sigma) {
      ++low;
    }
    const double below = std::log(sigma_at(schedule, static_cast<double>(low)));
    const double above = std::log(sigma_at(schedule, static_cast<double>(low + 1)));
    const double share = std::clamp((std::log(sigma) - below) / (above - below), 0.0, 1.0);
    return static_cast<double>(low) + share;
  }

  at::Tensor last_picture_;
};

}  // namespace

std::unique_ptr<Sampler> make_sampler(const NoiseSchedule& schedule,
                                      const SamplerSettings& settings) {
  LS_ASSERT(settings.count >= 1 && settings.count <= schedule.steps());
  switch (settings.kind) {
    case SamplerKind::kDdim:
      return std::make_unique<Ddim>(schedule, settings);
    case SamplerKind::kEuler:
    case SamplerKind::kEulerAncestral:
      return std::make_unique<Euler>(schedule, settings);
    case SamplerKind::kDpmPp2mKarras:
      return std::make_unique<DpmPp2mKarras>(schedule, settings);
  }
  LS_ASSERT(false);
}

}  // namespace lorascale::models::diffusion
