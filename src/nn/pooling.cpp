#include "nn/pooling.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/div.h>
#include <ATen/ops/max_pool2d_with_indices.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/zeros.h>

#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

constexpr std::int64_t kKernel = 3;
constexpr std::int64_t kStride = 2;
constexpr std::int64_t kPadding = 1;

// Where each window begins, in the input: -1, 1, 3, ...
at::Tensor window_starts(std::int64_t windows, const at::TensorOptions& options) {
  return at::arange(windows, options).mul_(kStride).sub_(kPadding);
}

}  // namespace

at::Tensor max_pool(const at::Tensor& x, MaxPoolSaved* saved) {
  auto [y, index] = at::max_pool2d_with_indices(x, kKernel, kStride, kPadding);
  if (saved != nullptr) {
    const at::Tensor row = at::div(index, x.size(3), "floor");
    const at::Tensor column = at::remainder(index, x.size(3));
    const at::Tensor top = window_starts(y.size(2), index.options()).view({-1, 1});
    const at::Tensor left = window_starts(y.size(3), index.options());
    *saved = {x.size(2), x.size(3),
              (row - top).mul_(kKernel).add_(column).sub_(left).to(at::kByte)};
  }
  return y;
}

// Not ATen's, which adds by atomics on a device. Windows at one place of their 3 x 3 never share an
// input: nine additions, each without a conflict.
at::Tensor max_pool_backward(const at::Tensor& dy, const MaxPoolSaved& saved) {
  const auto rows = dy.size(2);
  const auto columns = dy.size(3);
  const at::Tensor padded = at::zeros(
      {dy.size(0), dy.size(1), kStride * (rows - 1) + kKernel, kStride * (columns - 1) + kKernel},
      dy.options().dtype(sum_type(dy)));
  for (std::int64_t place = 0; place < kKernel * kKernel; ++place) {
    const auto row = place / kKernel;
    const auto column = place % kKernel;
    padded.slice(2, row, row + kStride * (rows - 1) + 1, kStride)
        .slice(3, column, column + kStride * (columns - 1) + 1, kStride)
        .add_(dy * (saved.place == place));
  }
  return padded.narrow(2, kPadding, saved.height)
      .narrow(3, kPadding, saved.width)
      .to(dy.scalar_type())
      .contiguous();
}

at::Tensor mean_pool(const at::Tensor& x) {
  return x.mean({2, 3});
}

at::Tensor mean_pool_backward(const at::Tensor& dy, std::int64_t height, std::int64_t width) {
  return (dy / static_cast<double>(height * width))
      .view({dy.size(0), dy.size(1), 1, 1})
      .expand({dy.size(0), dy.size(1), height, width})
      .contiguous();
}

}  // namespace lorascale::nn
