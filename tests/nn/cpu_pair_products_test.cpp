// Products of pairs of bf16 against torch's in fp64, and that nothing beside the result is touched.
#include "nn/cpu_pair_products.hpp"

#include <cmath>
#include <limits>

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::expect_close;
using test::noise;
using test::same_bits;

class CpuPairProductsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!cpu::has_bf16_pairs()) {
      GTEST_SKIP() << "this CPU has no AVX512_BF16, or ATEN_CPU_CAPABILITY forbids it";
    }
  }
};

at::Tensor word_buffer(std::int64_t rows, std::int64_t words) {
  return at::zeros({rows, words}, at::kInt);
}
std::uint32_t* words_of(at::Tensor& buffer, std::int64_t row) {
  return reinterpret_cast<std::uint32_t*>(buffer.mutable_data_ptr<std::int32_t>()) +
         row * buffer.stride(0);
}
// Row 2 i and 2 i + 1 of x (if there is one) as row i of words.
at::Tensor across(const at::Tensor& x) {
  auto words = word_buffer((x.size(0) + 1) / 2, x.size(1));
  for (std::int64_t i = 0; i < x.size(0); i += 2) {
    const float* row = x.const_data_ptr<float>() + i * x.stride(0);
    cpu::pair_rows(row, i + 1 < x.size(0) ? row + x.stride(0) : nullptr, words_of(words, i / 2),
                   x.size(1));
  }
  return words;
}
at::Tensor along(const at::Tensor& x) {
  const auto padded = at::constant_pad_nd(x, {0, x.size(1) % 2}).contiguous();
  auto words = word_buffer(x.size(0), padded.size(1) / 2);
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    cpu::round_row_with_pairs(padded.const_data_ptr<float>() + i * padded.stride(0),
                              reinterpret_cast<std::uint16_t*>(words_of(words, i)), padded.size(1));
  }
  return words;
}
at::Tensor rounded(const at::Tensor& x) {
  return x.to(at::kBFloat16).to(at::kDouble);
}

TEST_F(CpuPairProductsTest, AgreeWithTorchAndTouchNothingElse) {
  constexpr float kUntouched = 1e30F;
  for (const std::int64_t rows : {1, 2, 5, 11, 32}) {
    for (const std::int64_t inner : {1, 2, 7, 64, 131}) {
      for (const std::int64_t columns : {16, 32, 48, 64, 176}) {
        for (const bool turned : {false, true}) {
          for (const bool add : {false, true}) {
            const auto a = noise({rows, inner}, 1), b = noise({inner, columns}, 2);
            auto left = turned ? across(a.t().contiguous()) : along(a);
            auto right = across(b);
            auto c = at::full({rows + 1, columns + 5}, kUntouched);
            auto result = c.narrow(0, 0, rows).narrow(1, 0, columns);
            result.copy_(noise({rows, columns}, 3));
            auto expected = at::mm(rounded(a), rounded(b));
            if (add) {
              expected.add_(result);
            }
            const auto step = left.stride(0);
            cpu::small_product({words_of(left, 0), turned ? 1 : step, turned ? step : 1},
                               words_of(right, 0), right.stride(0), c.mutable_data_ptr<float>(),
                               c.stride(0), rows, (inner + 1) / 2, columns, add);
            expect_close(result, expected, 4e-6, "product");
            EXPECT_TRUE(c.narrow(1, columns, 5).eq(kUntouched).all().item<bool>());
            EXPECT_TRUE(c.narrow(0, rows, 1).eq(kUntouched).all().item<bool>());
          }
        }
      }
    }
  }
}

// As bf16 stands in memory, whatever the number of columns, and nothing beyond them.
TEST_F(CpuPairProductsTest, WordsHoldTheNearestNumbersInTheirOrder) {
  for (const std::int64_t n : {1, 2, 15, 16, 17, 40}) {
    const auto x = noise({2, n}, 4), bits = x.to(at::kBFloat16);
    const auto expected = bits.t().contiguous();  // [n, 2]: words of both rows
    const auto both = across(x);
    EXPECT_TRUE(same_bits(both.view(at::kBFloat16).view({n, 2}), expected)) << n;
    auto from_bits = word_buffer(1, n + 1);
    const auto* row = reinterpret_cast<const std::uint16_t*>(bits.const_data_ptr<at::BFloat16>());
    cpu::pair_rows(row, row + n, words_of(from_bits, 0), n);
    EXPECT_TRUE(same_bits(from_bits.narrow(1, 0, n), both)) << n;
    EXPECT_EQ(from_bits[0][n].item<int>(), 0) << n;
    auto alone = word_buffer(1, n);
    cpu::pair_rows(row, nullptr, words_of(alone, 0), n);
    EXPECT_TRUE(alone.view(at::kBFloat16).view({n, 2}).select(1, 1).eq(0).all().item<bool>()) << n;
  }
}

TEST_F(CpuPairProductsTest, RowsAreRoundedAndWidenedAsTorchDoes) {
  for (const std::int64_t n : {1, 2, 15, 16, 17, 40}) {
    auto x = noise({n}, 5);
    x[0] = std::numeric_limits<float>::infinity();
    if (n > 1) {
      x[1] = 3.4e38F;  // rounds to infinity
    }
    const auto expected = x.to(at::kBFloat16);
    auto rounded = at::full({n + 1}, 7.0F, at::kBFloat16);
    auto* bits = reinterpret_cast<std::uint16_t*>(rounded.mutable_data_ptr<at::BFloat16>());
    cpu::round_row_with_pairs(x.const_data_ptr<float>(), bits, n);
    EXPECT_TRUE(same_bits(rounded.narrow(0, 0, n), expected)) << n;
    EXPECT_EQ(rounded[n].item<float>(), 7.0F) << n;
    auto widened = at::full({n + 1}, 7.0F);
    cpu::widen_row_with_pairs(bits, widened.mutable_data_ptr<float>(), n);
    EXPECT_TRUE(same_bits(widened.narrow(0, 0, n), expected.to(at::kFloat))) << n;
    EXPECT_EQ(widened[n].item<float>(), 7.0F) << n;
  }
  float nan = std::numeric_limits<float>::quiet_NaN();
  std::uint16_t bits = 0;
  cpu::round_row_with_pairs(&nan, &bits, 1);
  cpu::widen_row_with_pairs(&bits, &nan, 1);
  EXPECT_TRUE(std::isnan(nan));
}

}  // namespace
}  // namespace lorascale::nn
