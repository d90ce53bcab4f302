// What the row kernels promise beyond their formulas (which the tests of their callers check):
// results that depend neither on alignment nor on the number of threads.
#include "nn/cpu_kernels.hpp"

#include <ATen/Parallel.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

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
    const float rstd = cpu::rms_norm_rstd(x.data() + shift, kWidth, 1e-5F);
    cpu::rms_norm_apply_row(x.data() + shift, w.data() + shift, rstd, y.data() + shift, kWidth);
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

// All numbers of bf16 come back from fp32 as they were; fp32 is rounded as libtorch rounds it,
// ties, carries into the exponent, denormals and infinities included.
TEST(CpuKernelsTest, Bf16RoundsToNearestEven) {
  std::vector<std::uint16_t> all(1 << 16), back(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<std::uint16_t>(i);
  }
  std::vector<float> wide(all.size());
  const auto count = static_cast<std::int64_t>(all.size());
  cpu::widen_row(all.data(), wide.data(), count);
  cpu::round_row(wide.data(), back.data(), count);
  const auto is_nan = [](std::uint16_t bits) { return (bits & 0x7FFFU) > 0x7F80U; };
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_TRUE(is_nan(all[i]) ? is_nan(back[i]) : back[i] == all[i]) << i;
  }
  // Next to every number: the middle to the one above, and its neighbours.
  std::vector<float> between;
  for (std::uint32_t high = 0; high < (1U << 16); ++high) {
    for (const std::uint32_t low : {0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU}) {
      between.push_back(std::bit_cast<float>((high << 16) | low));
    }
  }
  std::vector<std::uint16_t> rounded(between.size());
  const auto size = static_cast<std::int64_t>(between.size());
  cpu::round_row(between.data(), rounded.data(), size);
  for (std::size_t i = 0; i < between.size(); ++i) {
    const at::BFloat16 expected(between[i]);
    EXPECT_TRUE(std::isnan(between[i]) ? is_nan(rounded[i]) : rounded[i] == expected.x)
        << std::hex << std::bit_cast<std::uint32_t>(between[i]);
  }
}

// p - onehot sums to zero, and the loss is the same with and without a gradient.
// Within 3 ulp, and 0 below what fp32 has as normal numbers.
TEST(CpuKernelsTest, SoftmaxIsExpOfWhatFp32Rounds) {
  constexpr float kScale = 0.125F;  // exact
  std::vector<float> x;
  for (int i = 0; i < 90000; ++i) {
    x.push_back(-static_cast<float>(i) * 0.001F / kScale);
  }
  auto y = x;
  const auto sum = cpu::softmax_row(y.data(), kScale, std::ssize(y));
  double expected_sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(double{kScale} * double{x[i]});
    expected_sum += expected;
    if (kScale * x[i] < -87.33F) {  // fp32 has normal numbers down to exp(-87.3365)
      ASSERT_EQ(y[i], 0.0F) << x[i];
    } else {
      ASSERT_NEAR(y[i] / expected, 1, 1.8e-7) << x[i];
    }
  }
  EXPECT_NEAR(sum.log_sum, std::log(expected_sum), 5e-6);  // 90,000 terms in fp32
  EXPECT_NEAR(sum.factor * expected_sum, 1, 5e-6);
}

TEST(CpuKernelsTest, ExpHasItsLimits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::array<float, 4> x = {0.0F, -kInfinity, -1e30F, nan};
  cpu::softmax_row(x.data(), 1, 3);
  EXPECT_EQ(x[0], 1.0F);
  EXPECT_EQ(x[1], 0.0F);
  EXPECT_EQ(x[2], 0.0F);
  // silu(g) = g / (1 + exp(-g)): 0 and g far out, NaN for NaN.
  std::array<float, 8> gate_up = {-1000.0F, -88.5F, 1000.0F, nan, 1.0F, 1.0F, 1.0F, 1.0F};
  std::array<float, 4> y{};
  cpu::swiglu_row(gate_up.data(), y.data(), 4);
  EXPECT_EQ(y[0], 0.0F);
  EXPECT_NEAR(y[1], 0.0F, 1e-36F);
  EXPECT_EQ(y[2], 1000.0F);
  EXPECT_TRUE(std::isnan(y[3]));
}

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

class ThreadsTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(ThreadsTest, DoNotChangeResults) {
  const auto x = noise({3000, 96}, 1).to(GetParam());
  const auto w = noise({96}, 2).to(GetParam());
  const auto head = noise({500, 96}, 3, 0.1).to(GetParam());
  const std::vector<std::int32_t> labels(3000, 7);
  const auto run = [&] {
    const auto norm = rms_norm(x, w, 1e-6);
    auto dx = at::zeros_like(x);
    auto dw = at::zeros({96}, at::kFloat);
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

INSTANTIATE_TEST_SUITE_P(Types, ThreadsTest, testing::Values(at::kFloat, at::kBFloat16));

}  // namespace
}  // namespace lorascale::nn
