#include "models/diffusion/unet_transformer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "models/diffusion/maps.hpp"
#include "models/diffusion/parts.hpp"
#include "nn/activation.hpp"

namespace lorascale::models::diffusion {

TransformerBlock::TransformerBlock(const std::string& prefix, const TransformerShape& shape,
                                   const at::TensorOptions& options)
    : heads_(shape.heads) {
  constexpr double kEps = 1e-5;
  const auto d = shape.channels;
  norm1_ = layer_norm(prefix + "norm1", d, kEps, options);
  norm2_ = layer_norm(prefix + "norm2", d, kEps, options);
  norm3_ = layer_norm(prefix + "norm3", d, kEps, options);
  const auto self = prefix + "attn1.", cross = prefix + "attn2.";
  qkv_ = linear_group({{self + "to_q", d}, {self + "to_k", d}, {self + "to_v", d}}, d,
                      /*bias=*/false, options);
  self_out_ = linear_group({{self + "to_out.0", d}}, d, /*bias=*/true, options);
  q_ = linear_group({{cross + "to_q", d}}, d, /*bias=*/false, options);
  kv_ = linear_group({{cross + "to_k", d}, {cross + "to_v", d}}, shape.context, /*bias=*/false,
                     options);
  cross_out_ = linear_group({{cross + "to_out.0", d}}, d, /*bias=*/true, options);
  up_ = linear_group({{prefix + "ff.net.0.proj", 8 * d}}, d, /*bias=*/true, options);
  down_ = linear_group({{prefix + "ff.net.2", d}}, 4 * d, /*bias=*/true, options);
}

bool TransformerBlock::trains() const {
  return norm1_.trains() || norm2_.trains() || norm3_.trains() || qkv_.trains() ||
         self_out_.trains() || q_.trains() || kv_.trains() || cross_out_.trains() || up_.trains() ||
         down_.trains();
}

nn::CrossAttentionShape TransformerBlock::attention(std::int64_t samples, std::int64_t queries,
                                                    std::int64_t keys) const {
  return {samples, queries / samples, keys / samples, heads_, q_.out_features() / heads_};
}

at::Tensor TransformerBlock::forward(const at::Tensor& x, const at::Tensor& context,
                                     std::int64_t samples, const Draws& draws,
                                     TransformerBlockSaved* saved) const {
  const auto tokens = x.size(0), d = x.size(1);
  const at::Tensor joint = qkv_.forward(norm1_.forward(x, saved ? &saved->norm1 : nullptr),
                                        draws.tokens, saved ? &saved->qkv : nullptr);
  const at::Tensor attended_self =
      nn::cross_attention(joint.narrow(1, 0, d), joint.narrow(1, d, 2 * d),
                          attention(samples, tokens, tokens), saved ? &saved->self : nullptr);
  at::Tensor first =
      self_out_.forward(attended_self, draws.tokens, saved ? &saved->self_out : nullptr);
  first.add_(x);
  const at::Tensor q = q_.forward(norm2_.forward(first, saved ? &saved->norm2 : nullptr),
                                  draws.tokens, saved ? &saved->q : nullptr);
  const at::Tensor kv = kv_.forward(context, draws.words, saved ? &saved->kv : nullptr);
  const at::Tensor attended_cross = nn::cross_attention(
      q, kv, attention(samples, tokens, context.size(0)), saved ? &saved->cross : nullptr);
  at::Tensor second =
      cross_out_.forward(attended_cross, draws.tokens, saved ? &saved->cross_out : nullptr);
  second.add_(first);
  const at::Tensor inner = up_.forward(norm3_.forward(second, saved ? &saved->norm3 : nullptr),
                                       draws.tokens, saved ? &saved->up : nullptr);
  at::Tensor y = down_.forward(nn::geglu(inner), draws.tokens, saved ? &saved->down : nullptr);
  if (saved != nullptr) {
    saved->attended_self = attended_self;
    saved->attended_cross = attended_cross;
    saved->joint = inner;
  }
  return y.add_(second);
}

at::Tensor TransformerBlock::backward(at::Tensor grad, const at::Tensor& context,
                                      std::int64_t samples, const Draws& draws,
                                      TransformerBlockSaved& saved, at::Tensor& dcontext) const {
  const auto tokens = grad.size(0), d = grad.size(1);
  const at::Tensor dinner =
      down_.backward(grad, nn::geglu(saved.joint), draws.tokens, saved.down, /*need_dx=*/true);
  const at::Tensor dnormed3 =
      up_.backward(nn::geglu_backward(dinner, saved.joint), norm3_.apply(saved.norm3), draws.tokens,
                   saved.up, /*need_dx=*/true);
  norm3_.backward(dnormed3, saved.norm3, grad);
  const at::Tensor dcross = cross_out_.backward(grad, saved.attended_cross, draws.tokens,
                                                saved.cross_out, /*need_dx=*/true);
  const at::Tensor dq = at::empty_like(dcross);
  const bool need_dkv = dcontext.defined() || kv_.trains();
  const at::Tensor dkv =
      need_dkv ? at::empty({context.size(0), 2 * d}, context.options()) : at::Tensor();
  nn::cross_attention_backward(dcross, attention(samples, tokens, context.size(0)), saved.cross, dq,
                               dkv);
  if (need_dkv) {
    const at::Tensor dx = kv_.backward(dkv, context, draws.words, saved.kv, dcontext.defined());
    if (dcontext.defined()) {
      dcontext.add_(dx);
    }
  }
  const at::Tensor dnormed2 =
      q_.backward(dq, norm2_.apply(saved.norm2), draws.tokens, saved.q, /*need_dx=*/true);
  norm2_.backward(dnormed2, saved.norm2, grad);
  const at::Tensor dself =
      self_out_.backward(grad, saved.attended_self, draws.tokens, saved.self_out, /*need_dx=*/true);
  const at::Tensor dqkv = at::empty({tokens, 3 * d}, grad.options());
  nn::cross_attention_backward(dself, attention(samples, tokens, tokens), saved.self,
                               dqkv.narrow(1, 0, d), dqkv.narrow(1, d, 2 * d));
  const at::Tensor dnormed1 =
      qkv_.backward(dqkv, norm1_.apply(saved.norm1), draws.tokens, saved.qkv, /*need_dx=*/true);
  norm1_.backward(dnormed1, saved.norm1, grad);
  return grad;
}

void TransformerBlock::add_slots(std::vector<nn::ParameterSlot>& slots) {
  add_norm_slots(norm1_, slots);
  qkv_.add_slots(slots);
  self_out_.add_slots(slots);
  add_norm_slots(norm2_, slots);
  q_.add_slots(slots);
  kv_.add_slots(slots);
  cross_out_.add_slots(slots);
  add_norm_slots(norm3_, slots);
  up_.add_slots(slots);
  down_.add_slots(slots);
}

Transformer::Transformer(const std::string& prefix, const TransformerShape& shape,
                         const at::TensorOptions& options) {
  const auto d = shape.channels;
  norm_ = group_norm(prefix + "norm", d, shape.groups, /*eps=*/1e-6, options);
  in_ = linear_group({{prefix + "proj_in", d}}, d, /*bias=*/true, options);
  out_ = linear_group({{prefix + "proj_out", d}}, d, /*bias=*/true, options);
  for (std::int64_t i = 0; i < shape.depth; ++i) {
    blocks_.emplace_back(prefix + "transformer_blocks." + std::to_string(i) + ".", shape, options);
  }
}

bool Transformer::trains() const {
  return norm_.trains() || in_.trains() || out_.trains() ||
         std::ranges::any_of(blocks_, &TransformerBlock::trains);
}

at::Tensor Transformer::forward(const at::Tensor& x, const at::Tensor& context,
                                const nn::SampleRows* rows, TransformerSaved* saved) const {
  const auto samples = x.size(0);
  const at::Tensor words = context.reshape({-1, context.size(2)});
  const auto token_rows = rows_of(rows, x.size(2) * x.size(3));
  const auto word_rows = rows_of(rows, context.size(1));
  const TransformerBlock::Draws draws{token_rows ? &*token_rows : nullptr,
                                      word_rows ? &*word_rows : nullptr};
  at::Tensor tokens = in_.forward(to_tokens(norm_.forward(x, saved ? &saved->norm : nullptr)),
                                  draws.tokens, saved ? &saved->in : nullptr);
  if (saved != nullptr) {
    saved->blocks.resize(blocks_.size());
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    tokens = blocks_[i].forward(tokens, words, samples, draws, saved ? &saved->blocks[i] : nullptr);
  }
  const at::Tensor y = to_map(out_.forward(tokens, draws.tokens, saved ? &saved->out : nullptr), x);
  if (saved != nullptr) {
    saved->inner = tokens;
  }
  return y.add_(x);
}

at::Tensor Transformer::backward(const at::Tensor& dy, const at::Tensor& context,
                                 const nn::SampleRows* rows, TransformerSaved& saved, bool need_dx,
                                 at::Tensor& dcontext) const {
  const auto samples = dy.size(0);
  const at::Tensor words = context.reshape({-1, context.size(2)});
  const auto token_rows = rows_of(rows, dy.size(2) * dy.size(3));
  const auto word_rows = rows_of(rows, context.size(1));
  const TransformerBlock::Draws draws{token_rows ? &*token_rows : nullptr,
                                      word_rows ? &*word_rows : nullptr};
  at::Tensor dwords = dcontext.defined() ? dcontext.view({-1, context.size(2)}) : at::Tensor();
  at::Tensor grad = out_.backward(to_tokens(dy).contiguous(), saved.inner, draws.tokens, saved.out,
                                  /*need_dx=*/true);
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    grad = blocks_[i].backward(std::move(grad), words, samples, draws, saved.blocks[i], dwords);
    saved.blocks[i] = {};
  }
  const bool need_normed = need_dx || norm_.trains();
  const at::Tensor normed = to_tokens(norm_.apply(saved.norm));
  const at::Tensor dnormed = in_.backward(grad, normed, draws.tokens, saved.in, need_normed);
  if (!need_normed) {
    return {};
  }
  const at::Tensor dx = norm_.backward(to_map(dnormed, dy), saved.norm, need_dx);
  return need_dx ? dx + dy : at::Tensor();
}

void Transformer::add_sites(std::vector<nn::Site>& sites) {
  const auto add = [&](nn::LinearGroup& group) {
    const auto of_group = group.sites();
    sites.insert(sites.end(), of_group.begin(), of_group.end());
  };
  add(in_);
  for (auto& block : blocks_) {
    for (auto* linears : block.linears()) {
      add(*linears);
    }
  }
  add(out_);
}

void Transformer::add_slots(std::vector<nn::ParameterSlot>& slots) {
  add_norm_slots(norm_, slots);
  in_.add_slots(slots);
  for (auto& block : blocks_) {
    block.add_slots(slots);
  }
  out_.add_slots(slots);
}

}  // namespace lorascale::models::diffusion
