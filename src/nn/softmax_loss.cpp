#include "nn/softmax_loss.hpp"

#include <ATen/ops/argmax.h>
#include <ATen/ops/tensor.h>

#include <vector>

#include "base/error.hpp"
#include "nn/cross_entropy.hpp"

namespace lorascale::nn {
namespace {

// The rows that have a target, and their labels.
struct Targets {
  std::vector<std::int64_t> rows;
  std::vector<std::int32_t> labels;

  Targets(std::span<const std::int32_t> all, std::int64_t classes) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      LS_ASSERT(all[i] >= -1 && all[i] < classes);
      if (all[i] >= 0) {
        rows.push_back(static_cast<std::int64_t>(i));
        labels.push_back(all[i]);
      }
    }
  }
};

at::Tensor on_device(const std::vector<std::int64_t>& values, at::Device device) {
  return at::tensor(at::IntArrayRef(values), at::TensorOptions().dtype(at::kLong)).to(device);
}

at::Tensor correct(const at::Tensor& logits, const Targets& targets) {
  const at::Tensor labels =
      on_device({targets.labels.begin(), targets.labels.end()}, logits.device());
  return logits.argmax(1).eq(labels).sum(at::kDouble);
}

}  // namespace

SoftmaxLoss softmax_loss(const at::Tensor& logits, std::span<const std::int32_t> labels) {
  LS_ASSERT(static_cast<std::size_t>(logits.size(0)) == labels.size());
  const Targets targets(labels, logits.size(1));
  at::Tensor with_target = logits.index_select(0, on_device(targets.rows, logits.device()));
  at::Tensor right = correct(with_target, targets);
  return {logits_cross_entropy(with_target, targets.labels, /*backward=*/false), std::move(right)};
}

SoftmaxLoss softmax_loss_backward(at::Tensor& logits, std::span<const std::int32_t> labels,
                                  double label_smoothing) {
  LS_ASSERT(static_cast<std::size_t>(logits.size(0)) == labels.size());
  const Targets targets(labels, logits.size(1));
  const at::Tensor rows = on_device(targets.rows, logits.device());
  at::Tensor with_target = logits.index_select(0, rows);
  at::Tensor right = correct(with_target, targets);
  at::Tensor sum =
      logits_cross_entropy(with_target, targets.labels, /*backward=*/true, label_smoothing);
  logits.zero_().index_copy_(0, rows, with_target);
  return {std::move(sum), std::move(right)};
}

}  // namespace lorascale::nn
