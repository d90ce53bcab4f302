// Parts of diffusion pipelines with random weights, and their gradients by autograd through their
// own forward.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "nn/parameter_slot.hpp"
#include "support/tensors.hpp"

namespace lorascale::models::diffusion {

// Norms near one, the rest small enough for sums to stay in range.
inline void fill(const std::vector<nn::ParameterSlot>& slots) {
  std::uint64_t seed = 100;
  for (const auto& slot : slots) {
    const auto& key = slot.parts.front().key;
    const bool is_norm = slot.value->dim() == 1 && key.ends_with(".weight");
    const double scale = slot.value->dim() == 1
                             ? 0.2
                             : std::sqrt(3.0 / double(slot.value->numel() / slot.value->size(0)));
    slot.value->copy_(test::noise(slot.value->sizes(), seed++, scale));
    if (is_norm) {
      slot.value->add_(1);
    }
  }
}

// Gives every slot that `of` picks a gradient of zeros.
template <class Of>
void train(const std::vector<nn::ParameterSlot>& slots, Of&& of) {
  for (const auto& slot : slots) {
    if (of(slot.parts.front().key)) {
      *slot.grad = at::zeros_like(*slot.value);
    }
  }
}

inline void follow(const std::vector<nn::ParameterSlot>& slots, bool follow) {
  for (const auto& slot : slots) {
    slot.value->requires_grad_(follow);
  }
}

inline void expect_gradients(const std::vector<nn::ParameterSlot>& slots, const at::Tensor& output,
                             const at::Tensor& weights) {
  std::vector<at::Tensor> inputs;
  for (const auto& slot : slots) {
    inputs.push_back(*slot.value);
  }
  const auto expected = test::autograd_of(output, weights, inputs);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].grad->defined()) {
      const auto& key = slots[i].parts.front().key;
      const auto scale = expected[i].abs().max();
      ASSERT_GT(scale.item<double>(), 1e-12) << key;
      test::expect_close(*slots[i].grad / scale, expected[i] / scale, 1e-9, key);
    }
  }
}

// Against central differences of loss() along a random direction of each slot.
template <class Loss>
void expect_gradients_by_differences(const std::vector<nn::ParameterSlot>& slots, Loss&& loss) {
  constexpr double kStep = 1e-5;
  std::uint64_t seed = 900;
  for (const auto& slot : slots) {
    if (!slot.grad->defined()) {
      continue;
    }
    const auto direction = test::noise(slot.value->sizes(), seed++).to(at::kDouble);
    const auto moved = [&](double by) {
      slot.value->add_(direction, by);
      return loss();
    };
    const double ahead = moved(kStep), back = moved(-2 * kStep);
    moved(kStep);
    const double expected = (ahead - back) / (2 * kStep);
    const double actual = (*slot.grad * direction).sum().template item<double>();
    const double size = (slot.grad->abs() * direction.abs()).sum().template item<double>();
    ASSERT_GT(size, 1e-6) << slot.parts.front().key;
    EXPECT_NEAR(actual, expected, 1e-6 * size + 1e-9) << slot.parts.front().key;
  }
}

}  // namespace lorascale::models::diffusion
