// Shared by the tests of libtorch code: numbers that do not come from torch's own generator,
// comparison with a tolerance, and gradients by autograd in fp64.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/rng.hpp"

namespace lorascale::test {

// fp32, uniform in [-scale, scale): a function of seed and place only.
inline at::Tensor noise(at::IntArrayRef shape, std::uint64_t seed, double scale = 1.0) {
  at::Tensor result = at::empty(shape, at::kFloat);
  float* data = result.data_ptr<float>();
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    const double u = static_cast<double>(mix64(mix64(seed) + static_cast<std::uint64_t>(i)) >> 11);
    data[i] = static_cast<float>(scale * (u * 0x1p-52 - 1.0));
  }
  return result;
}

// |actual - expected| <= tolerance * (1 + |expected|), element by element; both finite.
inline void expect_close(const at::Tensor& actual, const at::Tensor& expected, double tolerance,
                         const std::string& what = "") {
  ASSERT_TRUE(actual.defined() && expected.defined()) << what;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  if (actual.numel() == 0) {
    return;
  }
  const at::Tensor a = actual.detach().to(at::kDouble);
  const at::Tensor e = expected.detach().to(at::kDouble);
  ASSERT_TRUE(e.isfinite().all().item<bool>()) << what << ": expected values are not finite";
  const at::Tensor excess = (a - e).abs() - tolerance * (1.0 + e.abs());
  const auto worst = excess.flatten().argmax().item<std::int64_t>();
  EXPECT_TRUE(a.isfinite().all().item<bool>() && excess.max().item<double>() <= 0)
      << what << ": element " << worst << " is " << a.flatten()[worst].item<double>()
      << ", expected " << e.flatten()[worst].item<double>() << " (tolerance " << tolerance << ")";
}

// The same bits, also of NaN and of minus zero.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.contiguous();
  const at::Tensor y = b.contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         (x.nbytes() == 0 || std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0);
}

// An fp64 copy that autograd follows.
inline at::Tensor leaf64(const at::Tensor& x) {
  return x.detach().to(at::kDouble).clone().requires_grad_(true);
}

// Gradients of sum(output * weights) by autograd; zeros where an input has no part in it.
inline std::vector<at::Tensor> autograd_of(const at::Tensor& output, const at::Tensor& weights,
                                           const std::vector<at::Tensor>& inputs) {
  auto gradients = torch::autograd::grad({output}, inputs, {weights.to(output.scalar_type())},
                                         /*retain_graph=*/true, /*create_graph=*/false,
                                         /*allow_unused=*/true);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!gradients[i].defined()) {
      gradients[i] = at::zeros_like(inputs[i]);
    }
  }
  return gradients;
}

}  // namespace lorascale::test
