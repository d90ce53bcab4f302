// What the row kernels promise beyond their formulas (which the tests of their callers check):
// results that depend neither on alignment nor on the number of threads.
#include "nn/cpu_kernels.hpp"

#include <ATen/Parallel.h>

#include <cstring>

#include "nn/cross_entropy.hpp"
#include "nn/norm.hpp"
#include "nn/swiglu.hpp"
#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::noise;
using test::same_bits;

TEST(CpuKernelsTest, AlignmentDoesNotMatter) {
  constexpr std::int64_t kWidth = 53;
  const auto source = noise({kWidth}, 1);
  std::vector<std::vector<float>> results;
  for (std::size_t shift = 0; shift < 5; ++shift) {
    std::vector<float> x(kWidth + 8), w(kWidth + 8), y(kWidth + 8);
    std::memcpy(x.data() + shift, source.const_data_ptr<float>(), kWidth * sizeof(float));
    std::memcpy(w.data() + shift, source.const_data_ptr<float>(), kWidth * sizeof(float));
    const float rstd =
        cpu::rms_norm_row(x.data() + shift, w.data() + shift, y.data() + shift, kWidth, 1e-5F);
    std::vector<float> result(y.begin() + static_cast<std::ptrdiff_t>(shift),
                              y.begin() + static_cast<std::ptrdiff_t>(shift) + kWidth);
    result.push_back(rstd);
    result.push_back(
        static_cast<float>(cpu::cross_entropy_backward_row(x.data() + shift, 7, kWidth)));
    result.insert(result.end(), x.begin() + static_cast<std::ptrdiff_t>(shift),
                  x.begin() + static_cast<std::ptrdiff_t>(shift) + kWidth);
    results.push_back(std::move(result));
  }
  for (const auto& result : results) {
    EXPECT_EQ(result, results.front());
  }
}

// p - onehot sums to zero, and the loss is the same with and without a gradient.
TEST(CpuKernelsTest, SoftmaxGradientSumsToZero) {
  for (const std::int64_t n : {1, 2, 15, 16, 17, 31, 257}) {
    auto logits = noise({n}, static_cast<std::uint64_t>(n), 20.0);
    const auto label = n / 2;
    const double loss = cpu::cross_entropy_row(logits.const_data_ptr<float>(), label, n);
    EXPECT_EQ(cpu::cross_entropy_backward_row(logits.data_ptr<float>(), label, n), loss);
    EXPECT_NEAR(logits.sum(at::kDouble).item<double>(), 0.0, 1e-6);
    EXPECT_NEAR(std::exp(-loss) - 1.0, logits[label].item<float>(), 1e-6);
    EXPECT_GE(loss, -1e-7);
  }
}

TEST(CpuKernelsTest, ThreadsDoNotChangeResults) {
  const auto x = noise({3000, 96}, 1);
  const auto w = noise({96}, 2);
  const auto head = noise({500, 96}, 3, 0.1);
  const std::vector<std::int32_t> labels(3000, 7);
  const auto run = [&] {
    const auto norm = rms_norm(x, w, 1e-6);
    auto dx = at::zeros_like(x);
    auto dw = at::zeros_like(w);
    rms_norm_backward(norm.y, x, w, norm.rstd, dx, dw);
    auto dx_only = at::zeros_like(x);
    rms_norm_backward(norm.y, x, w, norm.rstd, dx_only, {});
    auto joint = x.clone();
    const auto activated = swiglu(joint);
    swiglu_backward(activated, joint);
    const auto loss = head_cross_entropy(x, head, labels, nullptr);
    return std::vector<at::Tensor>{norm.y, dx, dw, dx_only, activated, joint, loss};
  };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = run();
  at::set_num_threads(3);
  const auto three = run();
  at::set_num_threads(threads);
  for (std::size_t i = 0; i + 1 < one.size(); ++i) {
    EXPECT_TRUE(same_bits(one[i], three[i])) << i;
  }
  // The product of the head is the BLAS library's; the rest of the loss is ours.
  EXPECT_NEAR(one.back().item<double>(), three.back().item<double>(), 1e-3);
}

}  // namespace
}  // namespace lorascale::nn
