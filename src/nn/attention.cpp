#include "nn/attention.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "base/error.hpp"
#include "nn/cpu_attention.hpp"
#include "nn/cpu_rows.hpp"

namespace lorascale::nn {
namespace {

// [documents, length, width] of one run, as a view.
at::Tensor run_view(const at::Tensor& x, const AttentionRun& run) {
  return x.narrow(0, run.first_token, run.documents * run.length)
      .view({run.documents, run.length, x.size(1)});
}

std::optional<at::Tensor> window_mask(const AttentionShape& shape, std::int64_t length,
                                      at::Device device) {
  if (!shape.window || length <= *shape.window) {
    return std::nullopt;
  }
  const at::Tensor index = at::arange(length, at::TensorOptions().dtype(at::kLong).device(device));
  const at::Tensor distance = index.unsqueeze(1) - index.unsqueeze(0);
  return distance.ge(0).logical_and(distance.lt(*shape.window));
}

// joint: [documents, length, (heads + 2 kv_heads) * head_dim] -> [documents, length, heads *
// head_dim].
at::Tensor attend(const at::Tensor& joint, const AttentionShape& shape) {
  const auto documents = joint.size(0);
  const auto length = joint.size(1);
  const auto split = [&](std::int64_t first_head, std::int64_t heads) {
    return joint.narrow(2, first_head * shape.head_dim, heads * shape.head_dim)
        .view({documents, length, heads, shape.head_dim})
        .transpose(1, 2);
  };
  const at::Tensor q = split(0, shape.heads);
  const at::Tensor k = split(shape.heads, shape.kv_heads);
  const at::Tensor v = split(shape.heads + shape.kv_heads, shape.kv_heads);
  const auto mask = window_mask(shape, length, joint.device());
  const at::Tensor out = at::scaled_dot_product_attention(
      q, k, v, mask, /*dropout_p=*/0.0, /*is_causal=*/!mask.has_value(), /*scale=*/std::nullopt,
      /*enable_gqa=*/shape.heads != shape.kv_heads);
  return out.transpose(1, 2).reshape({documents, length, shape.heads * shape.head_dim});
}

}  // namespace

std::vector<AttentionRun> attention_runs(std::span<const std::int32_t> ends) {
  std::vector<AttentionRun> runs;
  std::int64_t begin = 0;
  for (const std::int64_t end : ends) {
    const auto length = end - begin;
    LS_ASSERT(length > 0);
    if (!runs.empty() && runs.back().length == length) {
      ++runs.back().documents;
    } else {
      runs.push_back({begin, 1, length});
    }
    begin = end;
  }
  return runs;
}

at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape,
                     std::span<const AttentionRun> runs, AttentionSaved* saved) {
  if (has_cpu_kernels(qkv)) {
    auto result = cpu_attention(qkv, shape, runs);
    if (saved != nullptr) {
      *saved = {qkv, result.out, result.log_sums, {}, {}};
    }
    return result.out;
  }
  at::Tensor out;
  if (runs.size() > 1) {
    out = at::empty({qkv.size(0), shape.heads * shape.head_dim}, qkv.options());
  }
  for (const auto& run : runs) {
    at::Tensor joint = run_view(qkv, run);
    at::Tensor result;
    if (saved == nullptr) {
      result = attend(joint, shape);
    } else {
      const at::AutoGradMode grad_on(true);
      joint = joint.detach().requires_grad_(true);
      result = attend(joint, shape);
      saved->inputs.push_back(joint);
      saved->outputs.push_back(result);
    }
    if (runs.size() > 1) {
      run_view(out, run).copy_(result.detach());
    } else {
      out = result.detach().view({qkv.size(0), shape.heads * shape.head_dim});
    }
  }
  return out;
}

at::Tensor attention_backward(const at::Tensor& grad, const AttentionShape& shape,
                              std::span<const AttentionRun> runs, AttentionSaved& saved) {
  if (saved.qkv.defined()) {
    const auto kept = std::exchange(saved, {});
    return cpu_attention_backward(grad, kept.qkv, {kept.out, kept.log_sums}, shape, runs);
  }
  const auto width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  at::Tensor dqkv = at::empty({grad.size(0), width}, grad.options());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto gradients =
        torch::autograd::grad({saved.outputs[i]}, {saved.inputs[i]}, {run_view(grad, runs[i])});
    run_view(dqkv, runs[i]).copy_(gradients[0]);
    saved.outputs[i].reset();
    saved.inputs[i].reset();
  }
  return dqkv;
}

}  // namespace lorascale::nn
