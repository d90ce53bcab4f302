// Products by either library and by our own kernel against fp64: every order of rows and columns,
// with a bias, of sizes that are small (BLAS), large (oneDNN) and thin (our own).
#include "nn/product.hpp"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::expect_close;
using test::noise;

at::Tensor turned_in_memory(const at::Tensor& x) {
  return x.t().contiguous().t();
}

struct Size {
  std::int64_t m, k, n;
};

TEST(ProductTest, AgreesWithFp64) {
  for (const auto& [m, k, n] :
       {Size{3, 5, 4}, Size{1, 64, 64}, Size{1100, 96, 80}, Size{300, 64, 700}, Size{2100, 300, 16},
        Size{1500, 16, 400}, Size{70, 3000, 8}, Size{40, 1025, 33}, Size{5, 0, 4},
        Size{300, 600, 512}}) {
    // Sums of many products reach 30 or more, of which fp32 keeps 2e-6 at every step.
    const double tolerance = k > 300 ? 4e-5 : 1e-5;
    SCOPED_TRACE(std::to_string(m) + " " + std::to_string(k) + " " + std::to_string(n));
    const auto a = noise({m, k}, 1), b = noise({k, n}, 2), bias = noise({n}, 3);
    const auto expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
    const auto wide = noise({m, k + 7}, 4);
    for (const auto& left : {a, turned_in_memory(a)}) {
      for (const auto& right : {b, turned_in_memory(b)}) {
        expect_close(product(left, right), expected, tolerance);
        expect_close(product(left, right, bias), expected + bias, tolerance);
      }
    }
    const auto part = wide.narrow(1, 3, k);
    expect_close(product(part, b), at::mm(part.to(at::kDouble), b.to(at::kDouble)), tolerance);
  }
}

TEST(ProductTest, KeepsTheType) {
  for (const auto type : {at::kBFloat16, at::kDouble}) {
    const auto a = noise({1100, 96}, 1).to(type), b = noise({96, 800}, 2).to(type);
    const auto y = product(a, b.t().contiguous().t());
    EXPECT_EQ(y.scalar_type(), type);
    expect_close(y, at::mm(a.to(at::kDouble), b.to(at::kDouble)), 3e-2);
  }
}

TEST(ProductTest, IsAddedToWhatIsThere) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const auto a = noise({70, 8}, 1).to(type), b = noise({48, 8}, 2).to(type).t();
    const auto wide = noise({70, 60}, 3).to(type);
    auto y = wide.clone().narrow(1, 5, 48);
    add_product(y, a, b, 0.5);
    const auto expected =
        wide.narrow(1, 5, 48).to(at::kDouble) + at::mm(a.to(at::kDouble), b.to(at::kDouble)) * 0.5;
    EXPECT_EQ(y.scalar_type(), type);
    expect_close(y, expected, type == at::kBFloat16 ? 5e-3 : 1e-6);
  }
}

TEST(ProductTest, RepeatsBitForBit) {
  const auto a = noise({1100, 96}, 1), b = noise({80, 96}, 2);
  EXPECT_TRUE(test::same_bits(product(a, b.t()), product(a.clone(), b.clone().t())));
}

}  // namespace
}  // namespace lorascale::nn
