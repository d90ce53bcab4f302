#include "models/diffusion/clip_text.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "base/error.hpp"
#include "models/diffusion/maps.hpp"
#include "models/diffusion/parts.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::models::diffusion {

ClipLayer::ClipLayer(const ClipTextConfig& config, std::int64_t number,
                     const at::TensorOptions& options)
    : shape_{config.heads, config.heads, config.hidden / config.heads, std::nullopt},
      activation_(config.activation) {
  const auto prefix = "text_model.encoder.layers." + std::to_string(number) + ".";
  const auto d = config.hidden;
  const auto attention = prefix + "self_attn.";
  norm1 = layer_norm(prefix + "layer_norm1", d, config.norm_eps, options);
  norm2 = layer_norm(prefix + "layer_norm2", d, config.norm_eps, options);
  qkv = linear_group(
      {{attention + "q_proj", d}, {attention + "k_proj", d}, {attention + "v_proj", d}}, d,
      /*bias=*/true, options);
  out = linear_group({{attention + "out_proj", d}}, d, /*bias=*/true, options);
  fc1 = linear_group({{prefix + "mlp.fc1", config.intermediate}}, d, /*bias=*/true, options);
  fc2 = linear_group({{prefix + "mlp.fc2", d}}, config.intermediate, /*bias=*/true, options);
}

bool ClipLayer::trains() const {
  return norm1.trains() || norm2.trains() || qkv.trains() || out.trains() || fc1.trains() ||
         fc2.trains();
}

at::Tensor ClipLayer::forward(const at::Tensor& x, const std::vector<nn::AttentionRun>& runs,
                              const nn::SampleRows* rows, ClipLayerSaved* saved) const {
  const at::Tensor normed = norm1.forward(x, saved ? &saved->norm1 : nullptr);
  const at::Tensor joint = qkv.forward(normed, rows, saved ? &saved->qkv : nullptr);
  const at::Tensor attended =
      nn::attention(joint, shape_, runs, saved ? &saved->attention : nullptr);
  at::Tensor middle = out.forward(attended, rows, saved ? &saved->out : nullptr);
  middle.add_(x);
  const at::Tensor inner = fc1.forward(norm2.forward(middle, saved ? &saved->norm2 : nullptr), rows,
                                       saved ? &saved->fc1 : nullptr);
  at::Tensor y = fc2.forward(nn::activate(inner, activation_), rows, saved ? &saved->fc2 : nullptr);
  if (saved != nullptr) {
    saved->attended = attended;
    saved->inner = inner;
  }
  return y.add_(middle);
}

at::Tensor ClipLayer::backward(at::Tensor grad, const std::vector<nn::AttentionRun>& runs,
                               const nn::SampleRows* rows, ClipLayerSaved& saved) const {
  const at::Tensor activated = nn::activate(saved.inner, activation_);
  const at::Tensor dactivated = fc2.backward(grad, activated, rows, saved.fc2, /*need_dx=*/true);
  const at::Tensor dinner = nn::activation_backward(dactivated, saved.inner, activation_);
  const at::Tensor dnormed2 =
      fc1.backward(dinner, norm2.apply(saved.norm2), rows, saved.fc1, /*need_dx=*/true);
  norm2.backward(dnormed2, saved.norm2, grad);
  const at::Tensor dattended = out.backward(grad, saved.attended, rows, saved.out,
                                            /*need_dx=*/true);
  const at::Tensor dqkv = nn::attention_backward(dattended, shape_, runs, saved.attention);
  const at::Tensor dnormed1 =
      qkv.backward(dqkv, norm1.apply(saved.norm1), rows, saved.qkv, /*need_dx=*/true);
  norm1.backward(dnormed1, saved.norm1, grad);
  return grad;
}

void ClipLayer::add_slots(std::vector<nn::ParameterSlot>& slots) {
  add_norm_slots(norm1, slots);
  qkv.add_slots(slots);
  out.add_slots(slots);
  add_norm_slots(norm2, slots);
  fc1.add_slots(slots);
  fc2.add_slots(slots);
}

ClipTextEncoder::ClipTextEncoder(const ClipTextConfig& config, const at::TensorOptions& options)
    : config_(config),
      tokens_(at::empty({config.vocabulary, config.hidden}, options)),
      positions_(at::empty({config.positions, config.hidden}, options)),
      final_norm_(
          layer_norm("text_model.final_layer_norm", config.hidden, config.norm_eps, options)) {
  for (std::int64_t i = 0; i < config.layers; ++i) {
    layers_.emplace_back(config, i, options);
  }
  if (config.projection > 0) {
    projection_ = linear_group({{"text_projection", config.projection}}, config.hidden,
                               /*bias=*/false, options);
  }
}

std::size_t ClipTextEncoder::first_trained() const {
  return static_cast<std::size_t>(std::ranges::find_if(layers_, &ClipLayer::trains) -
                                  layers_.begin());
}

at::Tensor ClipTextEncoder::embeddings_of(const at::Tensor& ids) const {
  const auto& rows = new_tokens_.rows;
  if (!rows.defined()) {
    return tokens_.index_select(0, ids);
  }
  const auto vocabulary = config_.vocabulary;
  return at::where(ids.ge(vocabulary).unsqueeze(1),
                   rows.index_select(0, (ids - vocabulary).clamp_(0, rows.size(0) - 1)),
                   tokens_.index_select(0, ids.clamp_max(vocabulary - 1)));
}

ClipOutput ClipTextEncoder::forward(const at::Tensor& ids, const ContextChoice& choice,
                                    const nn::SampleRows* rows, ClipTextSaved* saved) const {
  const auto count = ids.size(0), positions = config_.positions, d = config_.hidden;
  LS_ASSERT(ids.size(1) == positions && choice.skip >= 1 && choice.skip <= config_.layers);
  const auto runs = std::vector<nn::AttentionRun>{{0, count, positions}};
  const auto token_rows = rows_of(rows, positions);
  const auto* draws = token_rows ? &*token_rows : nullptr;
  const auto context_layer = layers_.size() - static_cast<std::size_t>(choice.skip - 1);
  const auto needed = config_.projection > 0 ? layers_.size() : context_layer;
  // Below it nothing has to be kept.
  const auto first = trains_embeddings() ? 0 : first_trained();
  at::Tensor x = (embeddings_of(ids.reshape({-1})).view({count, positions, d}) + positions_)
                     .view({count * positions, d});
  ClipOutput result;
  if (saved != nullptr) {
    saved->ids = ids;
    saved->layers.assign(layers_.size(), {});
  }
  for (std::size_t i = 0; i <= needed; ++i) {
    if (i == context_layer) {
      const at::Tensor context =
          choice.final_norm ? final_norm_.forward(x, saved ? &saved->context_norm : nullptr) : x;
      result.context = context.view({count, positions, d});
    }
    if (i < needed) {
      const bool keep = saved != nullptr && i >= first;
      x = layers_[i].forward(x, runs, draws, keep ? &saved->layers[i] : nullptr);
    }
  }
  if (config_.projection > 0) {
    // The first end token: later ones are padding.
    const at::Tensor ends = ids.eq(config_.end_token).to(at::kInt).argmax(1) +
                            at::arange(count, ids.options()) * positions;
    const at::Tensor normed =
        final_norm_.forward(x.index_select(0, ends), saved ? &saved->pooled_norm : nullptr);
    result.pooled = projection_.forward(normed, nullptr, nullptr);
    if (saved != nullptr) {
      saved->ends = ends;
    }
  }
  return result;
}

void ClipTextEncoder::backward(const at::Tensor& dcontext, const at::Tensor& dpooled,
                               const ContextChoice& choice, const nn::SampleRows* rows,
                               ClipTextSaved& saved) const {
  const auto count = saved.ids.size(0), positions = config_.positions, d = config_.hidden;
  const auto runs = std::vector<nn::AttentionRun>{{0, count, positions}};
  const auto token_rows = rows_of(rows, positions);
  const auto* draws = token_rows ? &*token_rows : nullptr;
  const auto context_layer = layers_.size() - static_cast<std::size_t>(choice.skip - 1);
  const auto first = trains_embeddings() ? 0 : first_trained();
  at::Tensor grad;
  const auto from_here = [&] {
    if (!grad.defined()) {
      grad = at::zeros({count * positions, d}, dcontext.options());
    }
  };
  std::size_t i = context_layer;
  if (dpooled.defined()) {
    from_here();
    const at::Tensor normed = final_norm_.apply(saved.pooled_norm);
    const at::Tensor dnormed = projection_.backward(dpooled, normed, nullptr, {}, /*need_dx=*/true);
    at::Tensor at_ends = at::zeros_like(normed);
    final_norm_.backward(dnormed, saved.pooled_norm, at_ends);
    grad.index_add_(0, saved.ends, at_ends);
    i = layers_.size();
  }
  for (;; --i) {
    if (i == context_layer) {
      from_here();
      const at::Tensor flat = dcontext.reshape({count * positions, d});
      if (choice.final_norm) {
        final_norm_.backward(flat, saved.context_norm, grad);
      } else {
        grad.add_(flat);
      }
    }
    if (i <= first) {
      break;
    }
    grad = layers_[i - 1].backward(std::move(grad), runs, draws, saved.layers[i - 1]);
    saved.layers[i - 1] = {};
  }
  if (trains_tokens()) {
    at::Tensor(token_grad_)
        .index_add_(0, saved.ids.reshape({-1}), grad.to(token_grad_.scalar_type()));
  }
  if (new_tokens_.gradient.defined()) {
    // A product, so that the order of the sum is always the same.
    const auto numbers =
        at::arange(new_tokens_.gradient.size(0), saved.ids.options()) + config_.vocabulary;
    const at::Tensor are = numbers.unsqueeze(1).eq(saved.ids.reshape({1, -1}));  // [n, tokens]
    nn::accumulate_product(new_tokens_.gradient, are.to(grad.scalar_type()), grad);
  }
  if (position_grad_.defined()) {
    at::Tensor(position_grad_).add_(grad.view({count, positions, d}).sum(0));
  }
}

std::vector<nn::Site> ClipTextEncoder::sites() {
  std::vector<nn::Site> sites;
  for (auto& layer : layers_) {
    for (auto* linears : layer.linears()) {
      const auto of_group = linears->sites();
      sites.insert(sites.end(), of_group.begin(), of_group.end());
    }
  }
  return sites;
}

std::vector<nn::ParameterSlot> ClipTextEncoder::parameter_slots() {
  std::vector<nn::ParameterSlot> slots;
  slots.push_back({{{"text_model.embeddings.token_embedding.weight", tokens_.sizes().vec()}},
                   &tokens_,
                   &token_grad_});
  slots.push_back({{{"text_model.embeddings.position_embedding.weight", positions_.sizes().vec()}},
                   &positions_,
                   &position_grad_});
  for (auto& layer : layers_) {
    layer.add_slots(slots);
  }
  add_norm_slots(final_norm_, slots);
  if (config_.projection > 0) {
    projection_.add_slots(slots);
  }
  return slots;
}

}  // namespace lorascale::models::diffusion
