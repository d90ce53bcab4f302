// Softmax cross-entropy of logits that exist as a whole, and how many of them are right: the loss
// of classifiers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace lorascale::nn {

// Both fp64 scalars on the logits' device, for which nobody waits here.
struct SoftmaxLoss {
  at::Tensor sum;      // over the rows with a target
  at::Tensor correct;  // rows whose largest logit, the first of equals, is the label's
};

// labels: [rows], each in [0, classes), or -1: the row is no target. label_smoothing as in
// head_cross_entropy().
SoftmaxLoss softmax_loss(const at::Tensor& logits, std::span<const std::int32_t> labels);
// The same; logits [rows, classes] become the gradient of the sum.
SoftmaxLoss softmax_loss_backward(at::Tensor& logits, std::span<const std::int32_t> labels,
                                  double label_smoothing);

}  // namespace lorascale::nn
