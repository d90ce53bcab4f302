// Small products against torch's in fp64, and that nothing beside the result is touched.
#include "nn/cpu_products.hpp"

#include <limits>

#include "support/tensors.hpp"

namespace lorascale::nn {
namespace {

using test::expect_close;
using test::noise;

// A left factor that stands as it is, or turned.
at::Tensor left_factor(std::int64_t rows, std::int64_t inner, bool turned) {
  return turned ? noise({inner, rows + 3}, 1).t().narrow(0, 0, rows)
                : noise({rows, inner + 3}, 1).narrow(1, 0, inner);
}

TEST(CpuProductsTest, AgreeWithTorchAndTouchNothingElse) {
  constexpr float kUntouched = 1e30F;
  for (const std::int64_t rows : {1, 2, 3, 5, 6, 11, 23, 32}) {
    for (const std::int64_t inner : {0, 1, 7, 64, 130}) {
      for (const std::int64_t columns : {8, 16, 24, 32, 48, 64, 72, 80, 176}) {
        for (const bool turned : {false, true}) {
          for (const bool add : {false, true}) {
            const auto a = left_factor(rows, inner, turned);
            const auto b = noise({inner, columns + 16}, 2);
            auto c = at::full({rows + 1, columns + 5}, kUntouched);
            auto result = c.narrow(0, 0, rows).narrow(1, 0, columns);
            result.copy_(noise({rows, columns}, 3));
            auto expected = at::mm(a.to(at::kDouble), b.narrow(1, 0, columns).to(at::kDouble));
            if (add) {
              expected.add_(result);
            }
            cpu::small_product({a.const_data_ptr<float>(), a.stride(0), a.stride(1)},
                               b.const_data_ptr<float>(), b.stride(0), c.mutable_data_ptr<float>(),
                               c.stride(0), rows, inner, columns, add);
            expect_close(result, expected, 4e-6, "product");
            EXPECT_TRUE(c.narrow(1, columns, 5).eq(kUntouched).all().item<bool>());
            EXPECT_TRUE(c.narrow(0, rows, 1).eq(kUntouched).all().item<bool>());
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lorascale::nn
