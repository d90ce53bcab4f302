// The language-model head: linear + softmax cross-entropy in chunks of rows, so that the logits of
// a leaf never exist as a whole. Loss is the SUM over rows; the caller divides by the global number
// of targets.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace lorascale::nn {

// Rows whose logits exist at a time, of so many in all.
std::int64_t head_rows_at_once(std::int64_t rows, const at::Tensor& weight);

struct HeadGradients {
  at::Tensor hidden;       // [rows, d] as hidden: written
  at::Tensor weight_grad;  // [vocabulary, d] fp32: added to, where defined
};

// hidden: [rows, d]; weight: [vocabulary, d]; labels: [rows], each in [0, vocabulary).
// Returns the loss sum, an fp64 scalar on hidden's device (nobody waits for it here); with
// `gradients` also fills those. label_smoothing a in [0, 1): the target of a row is (1 - a) on its
// label and a / vocabulary on every token (Szegedy et al. 2016), as in torch.
at::Tensor head_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                              std::span<const std::int32_t> labels, HeadGradients* gradients,
                              double label_smoothing = 0);

// The same of logits [rows, vocabulary], which become the gradient of the sum with `backward`.
at::Tensor logits_cross_entropy(at::Tensor& logits, std::span<const std::int32_t> labels,
                                bool backward, double label_smoothing = 0);

}  // namespace lorascale::nn
