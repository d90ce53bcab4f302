#include "models/decoder/block.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "nn/norm.hpp"
#include "nn/swiglu.hpp"

namespace lorascale::models::decoder {
namespace {

nn::LinearGroup group(const std::string& prefix,
                      std::initializer_list<std::pair<const char*, std::int64_t>> members) {
  nn::LinearGroup result;
  std::int64_t first = 0;
  for (const auto& [name, out] : members) {
    result.members.push_back({prefix + name, out, first});
    first += out;
  }
  return result;
}

}  // namespace

Block::Block(const DecoderConfig& config, std::int64_t layer)
    : shape_{config.heads, config.kv_heads, config.head_dim,
             config.windows[static_cast<std::size_t>(layer)]},
      eps_(config.norm_eps) {
  const std::string prefix = "model.layers." + std::to_string(layer) + ".";
  const auto q = config.heads * config.head_dim;
  const auto kv = config.kv_heads * config.head_dim;
  qkv = group(prefix + "self_attn.", {{"q_proj", q}, {"k_proj", kv}, {"v_proj", kv}});
  o = group(prefix + "self_attn.", {{"o_proj", config.hidden}});
  gate_up = group(prefix + "mlp.",
                  {{"gate_proj", config.intermediate}, {"up_proj", config.intermediate}});
  down = group(prefix + "mlp.", {{"down_proj", config.hidden}});
}

bool Block::trains() const {
  return qkv.trains() || o.trains() || gate_up.trains() || down.trains();
}

std::int64_t Block::kept_width() const {
  return qkv.deltas.kept_width() + o.deltas.kept_width() + gate_up.deltas.kept_width() +
         down.deltas.kept_width();
}

void Block::norm_heads(at::Tensor& joint, const HeadNorm& norm, std::int64_t first_head,
                       std::int64_t heads, HeadNormSaved* saved) const {
  if (!norm.weight.defined()) {
    return;
  }
  const auto dim = shape_.head_dim;
  at::Tensor part = joint.narrow(1, first_head * dim, heads * dim);
  at::Tensor input = part.contiguous().view({-1, dim});
  auto result = nn::rms_norm(input, norm.weight, eps_);
  part.copy_(result.y.view(part.sizes()));
  if (saved != nullptr) {
    *saved = {std::move(input), std::move(result.rstd)};
  }
}

void Block::norm_heads_backward(at::Tensor& dqkv, const HeadNorm& norm, std::int64_t first_head,
                                std::int64_t heads, const HeadNormSaved& saved) const {
  if (!norm.weight.defined()) {
    return;
  }
  const auto dim = shape_.head_dim;
  at::Tensor part = dqkv.narrow(1, first_head * dim, heads * dim);
  const at::Tensor grad = part.contiguous().view({-1, dim});
  at::Tensor input_grad = at::zeros_like(grad);
  nn::rms_norm_backward(grad, saved.input, norm.weight, saved.rstd, input_grad, norm.weight_grad);
  part.copy_(input_grad.view(part.sizes()));
}

at::Tensor Block::mlp(const at::Tensor& middle, const BlockContext& context,
                      BlockSaved* saved) const {
  auto norm = nn::rms_norm(middle, middle_norm, eps_);
  at::Tensor joint = gate_up.forward(norm.y, context.rows, saved ? &saved->gate_up_saved : nullptr);
  at::Tensor out =
      down.forward(nn::swiglu(joint), context.rows, saved ? &saved->down_saved : nullptr);
  if (saved != nullptr) {
    saved->middle = middle;
    saved->middle_rstd = std::move(norm.rstd);
    saved->gate_up = std::move(joint);
  }
  return out.add_(middle);
}

at::Tensor Block::forward(const at::Tensor& x, const BlockContext& context,
                          BlockSaved* saved) const {
  auto norm = nn::rms_norm(x, input_norm, eps_);
  at::Tensor joint = qkv.forward(norm.y, context.rows, saved ? &saved->qkv_saved : nullptr);
  norm.y.reset();
  norm_heads(joint, q_norm, 0, shape_.heads, saved ? &saved->q : nullptr);
  norm_heads(joint, k_norm, shape_.heads, shape_.kv_heads, saved ? &saved->k : nullptr);
  nn::apply_rope(joint, shape_.heads + shape_.kv_heads, context.rope, /*inverse=*/false);
  const at::Tensor attended =
      nn::attention(joint, shape_, context.runs, saved ? &saved->attention : nullptr);
  joint.reset();
  at::Tensor middle = o.forward(attended, context.rows, saved ? &saved->o_saved : nullptr);
  middle.add_(x);
  if (saved != nullptr) {
    saved->input = x;
    saved->input_rstd = std::move(norm.rstd);
    saved->attended = attended;
  }
  return mlp(middle, context, saved);
}

at::Tensor Block::backward_mlp(at::Tensor grad, const BlockContext& context, BlockSaved& saved) {
  at::Tensor inner = nn::swiglu(saved.gate_up);
  at::Tensor dinner = down.backward(grad, inner, context.rows, saved.down_saved, /*need_dx=*/true);
  inner.reset();
  nn::swiglu_backward(dinner, saved.gate_up);
  dinner.reset();
  const at::Tensor normed = nn::rms_norm_apply(saved.middle, middle_norm, saved.middle_rstd);
  const at::Tensor dnormed =
      gate_up.backward(saved.gate_up, normed, context.rows, saved.gate_up_saved, /*need_dx=*/true);
  saved.gate_up.reset();
  nn::rms_norm_backward(dnormed, saved.middle, middle_norm, saved.middle_rstd, grad,
                        middle_norm_grad);
  return grad;
}

at::Tensor Block::backward(at::Tensor grad, const BlockContext& context, BlockSaved& saved,
                           bool need_input_grad) {
  grad = backward_mlp(std::move(grad), context, saved);
  at::Tensor dattended =
      o.backward(grad, saved.attended, context.rows, saved.o_saved, /*need_dx=*/true);
  at::Tensor dqkv = nn::attention_backward(dattended, shape_, context.runs, saved.attention);
  dattended.reset();
  nn::apply_rope(dqkv, shape_.heads + shape_.kv_heads, context.rope, /*inverse=*/true);
  norm_heads_backward(dqkv, q_norm, 0, shape_.heads, saved.q);
  norm_heads_backward(dqkv, k_norm, shape_.heads, shape_.kv_heads, saved.k);
  const at::Tensor normed = nn::rms_norm_apply(saved.input, input_norm, saved.input_rstd);
  // The norm's own gradient, too, needs what comes through the linears.
  const bool need_dx = need_input_grad || input_norm_grad.defined();
  const at::Tensor dnormed = qkv.backward(dqkv, normed, context.rows, saved.qkv_saved, need_dx);
  if (!need_dx) {
    return {};
  }
  nn::rms_norm_backward(dnormed, saved.input, input_norm, saved.input_rstd, grad, input_norm_grad);
  return grad;
}

at::Tensor Block::decode(const at::Tensor& x, const nn::RopeTables& rope,
                         KeyValueCache& cache) const {
  const auto tokens = x.size(0);
  const auto dim = shape_.head_dim;
  at::Tensor joint = qkv.forward(nn::rms_norm(x, input_norm, eps_).y, nullptr, nullptr);
  norm_heads(joint, q_norm, 0, shape_.heads, nullptr);
  norm_heads(joint, k_norm, shape_.heads, shape_.kv_heads, nullptr);
  nn::apply_rope(joint, shape_.heads + shape_.kv_heads, rope, /*inverse=*/false);
  const auto heads_of = [&](std::int64_t first, std::int64_t heads) {
    return joint.narrow(1, first * dim, heads * dim).view({tokens, heads, dim});
  };
  cache.keys.narrow(0, cache.length, tokens).copy_(heads_of(shape_.heads, shape_.kv_heads));
  cache.values.narrow(0, cache.length, tokens)
      .copy_(heads_of(shape_.heads + shape_.kv_heads, shape_.kv_heads));
  const auto seen = cache.length + tokens;
  const auto options = at::TensorOptions().dtype(at::kLong).device(x.device());
  const at::Tensor distance =
      at::arange(cache.length, seen, options).unsqueeze(1) - at::arange(seen, options).unsqueeze(0);
  at::Tensor visible = distance.ge(0);
  if (shape_.window) {
    visible = visible.logical_and(distance.lt(*shape_.window));
  }
  const auto batched = [](const at::Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };
  const at::Tensor attended = at::scaled_dot_product_attention(
      batched(heads_of(0, shape_.heads)), batched(cache.keys.narrow(0, 0, seen)),
      batched(cache.values.narrow(0, 0, seen)), visible, /*dropout_p=*/0.0, /*is_causal=*/false,
      /*scale=*/std::nullopt, /*enable_gqa=*/shape_.heads != shape_.kv_heads);
  cache.length = seen;
  at::Tensor middle = o.forward(
      attended.squeeze(0).transpose(0, 1).reshape({tokens, shape_.heads * dim}), nullptr, nullptr);
  middle.add_(x);
  return mlp(middle, BlockContext{}, nullptr);
}

}  // namespace lorascale::models::decoder
