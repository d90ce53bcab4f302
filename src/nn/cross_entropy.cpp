#include "nn/cross_entropy.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "base/error.hpp"
#include "nn/cpu_rows.hpp"
#include "nn/dispatch.hpp"
#include "nn/product.hpp"

namespace lorascale::nn {
namespace {

double cpu_chunk(at::Tensor& logits, std::span<const std::int32_t> labels, bool backward,
                 double smoothing) {
  const auto rows = logits.size(0);
  const auto vocabulary = logits.size(1);
  std::vector<double> losses(static_cast<std::size_t>(rows));
  with_element_type(logits, [&]<class T>() {
    T* data = logits.data_ptr<T>();
    at::parallel_for(0, rows, 1, [&](std::int64_t begin, std::int64_t end) {
      Row<T> logits_row(vocabulary);
      for (auto row = begin; row < end; ++row) {
        T* x = data + row * logits.stride(0);
        const auto i = static_cast<std::size_t>(row);
        if (backward) {
          losses[i] = cpu::cross_entropy_backward_row(logits_row.update(x, vocabulary), labels[i],
                                                      vocabulary, smoothing);
          logits_row.put();
        } else {
          losses[i] = cpu::cross_entropy_row(logits_row.read(x, vocabulary), labels[i], vocabulary,
                                             smoothing);
        }
      }
    });
  });
  double sum = 0;  // in row order, whatever the threads did
  for (const double loss : losses) {
    sum += loss;
  }
  return sum;
}

// Loss sum as a device scalar, so that no chunk waits for the device; logits become their gradient.
at::Tensor generic_chunk(at::Tensor& logits, std::span<const std::int32_t> labels, bool backward,
                         double smoothing) {
  const at::Tensor index =
      at::tensor(at::IntArrayRef(std::vector<std::int64_t>(labels.begin(), labels.end())),
                 at::TensorOptions().dtype(at::kLong))
          .to(logits.device())
          .unsqueeze(1);
  const at::Tensor logprob = at::log_softmax(logits, 1, sum_type(logits));
  const double everywhere = smoothing / static_cast<double>(logits.size(1));
  at::Tensor loss = logprob.gather(1, index).sum(at::kDouble).mul_(smoothing - 1);
  if (smoothing > 0) {
    loss.sub_(logprob.sum(at::kDouble), everywhere);
  }
  if (backward) {
    at::Tensor probability = logprob.exp();
    if (smoothing > 0) {
      probability.sub_(everywhere);
    }
    // Not scatter_add_: it adds by atomics on a device, though each row has one label.
    probability.scatter_(1, index, probability.gather(1, index).add_(smoothing - 1));
    logits.copy_(probability);
  }
  return loss;
}

}  // namespace

// Few enough for memory not to matter, many enough for an efficient product. On CPUs no more than a
// few hundred rows, which stay in the cache until their gradient is multiplied, unless the
// vocabulary is small. All chunks are about as large: the few rows of a last one would read all of
// the weight.
std::int64_t head_rows_at_once(std::int64_t rows, const at::Tensor& weight) {
  constexpr std::int64_t kMiB = 1 << 20, kFewest = 64, kMany = 256;
  const auto row_bytes = weight.size(0) * weight.element_size();
  const auto most = weight.is_cpu()
                        ? std::min(32 * kMiB / row_bytes, std::max(kMany, 8 * kMiB / row_bytes))
                        : 256 * kMiB / weight.size(0);
  const auto in_chunk = std::max(kFewest, most);
  const auto chunks = std::max<std::int64_t>(1, (rows + in_chunk - 1) / in_chunk);
  return (rows + chunks - 1) / chunks;
}

at::Tensor logits_cross_entropy(at::Tensor& logits, std::span<const std::int32_t> labels,
                                bool backward, double label_smoothing) {
  LS_ASSERT(static_cast<std::size_t>(logits.size(0)) == labels.size());
  if (labels.empty()) {
    return at::zeros({}, logits.options().dtype(at::kDouble));
  }
  if (has_cpu_kernels(logits)) {
    return at::scalar_tensor(cpu_chunk(logits, labels, backward, label_smoothing), at::kDouble);
  }
  return generic_chunk(logits, labels, backward, label_smoothing);
}

at::Tensor head_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                              std::span<const std::int32_t> labels, HeadGradients* gradients,
                              double label_smoothing) {
  const auto rows = hidden.size(0);
  LS_ASSERT(static_cast<std::size_t>(rows) == labels.size());
  if (rows == 0) {
    return at::zeros({}, hidden.options().dtype(at::kDouble));
  }
  const auto chunk = head_rows_at_once(rows, weight);
  at::Tensor sum = at::zeros({}, hidden.options().dtype(at::kDouble));
  for (std::int64_t first = 0; first < rows; first += chunk) {
    const auto count = std::min(chunk, rows - first);
    const at::Tensor part = hidden.narrow(0, first, count);
    const auto part_labels =
        labels.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    at::Tensor logits = product(part, weight.t());
    sum.add_(logits_cross_entropy(logits, part_labels, gradients != nullptr, label_smoothing));
    if (gradients != nullptr) {
      gradients->hidden.narrow(0, first, count).copy_(product(logits, weight));
      if (gradients->weight_grad.defined()) {
        accumulate_product(gradients->weight_grad, logits.t(), part);
      }
    }
  }
  return sum;
}

}  // namespace lorascale::nn
