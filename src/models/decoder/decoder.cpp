#include "models/decoder/decoder.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/error.hpp"
#include "nn/cross_entropy.hpp"
#include "nn/norm.hpp"
#include "nn/product.hpp"
#include "nn/segment_sum.hpp"

namespace lorascale::models::decoder {
namespace {

at::Tensor index_tensor(std::span<const std::int32_t> values, at::Device device) {
  const at::Tensor host = at::from_blob(const_cast<std::int32_t*>(values.data()),
                                        {static_cast<std::int64_t>(values.size())}, at::kInt);
  return host.to(at::TensorOptions().device(device).dtype(at::kInt), /*non_blocking=*/false,
                 /*copy=*/true);
}

const data::TokenLeaf& tokens_of(const data::Leaf& leaf) {
  const auto* tokens = dynamic_cast<const data::TokenLeaf*>(&leaf);
  LS_ASSERT(tokens != nullptr);
  return *tokens;
}

// The rows that have a target, and their labels.
struct Targets {
  std::vector<std::int32_t> rows;
  std::vector<std::int32_t> labels;
  explicit Targets(const data::TokenLeaf& leaf) {
    for (std::size_t i = 0; i < leaf.labels.size(); ++i) {
      if (leaf.labels[i] >= 0) {
        rows.push_back(static_cast<std::int32_t>(i));
        labels.push_back(leaf.labels[i]);
      }
    }
  }
};

}  // namespace

Decoder::Decoder(DecoderConfig config, at::ScalarType dtype, at::Device device)
    : config_(std::move(config)), frequencies_(nn::rope_frequencies(config_.rope)) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const auto& c = config_;
  embedding_ = at::empty({c.vocabulary, c.hidden}, options);
  if (!c.tied_embeddings) {
    head_ = at::empty({c.vocabulary, c.hidden}, options);
  }
  final_norm_ = at::empty({c.hidden}, options);
  const auto fill = [&](nn::LinearGroup& linear, std::int64_t in, bool bias) {
    const auto out = linear.members.back().first + linear.members.back().out;
    linear.weight = at::empty({out, in}, options);
    if (bias) {
      linear.bias = at::empty({out}, options);
    }
  };
  blocks_.reserve(static_cast<std::size_t>(c.layers));
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    Block& block = blocks_.emplace_back(c, layer);
    block.input_norm = at::empty({c.hidden}, options);
    block.middle_norm = at::empty({c.hidden}, options);
    if (c.qk_norm) {
      block.q_norm.weight = at::empty({c.head_dim}, options);
      block.k_norm.weight = at::empty({c.head_dim}, options);
    }
    fill(block.qkv, c.hidden, c.qkv_bias);
    fill(block.o, c.heads * c.head_dim, c.o_bias);
    fill(block.gate_up, c.hidden, c.mlp_bias);
    fill(block.down, c.intermediate, c.mlp_bias);
  }
}

std::vector<nn::Site> Decoder::sites() {
  std::vector<nn::Site> sites;
  for (auto& block : blocks_) {
    for (auto* group : {&block.qkv, &block.o, &block.gate_up, &block.down}) {
      std::ranges::move(group->sites(), std::back_inserter(sites));
    }
  }
  return sites;
}

std::vector<nn::ParameterSlot> Decoder::parameter_slots() {
  std::vector<nn::ParameterSlot> slots;
  const auto single = [&](const std::string& key, at::Tensor& value, at::Tensor& grad) {
    if (value.defined()) {
      slots.push_back({{{key, value.sizes().vec()}}, &value, &grad});
    }
  };
  single("model.embed_tokens.weight", embedding_, embedding_grad_);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    Block& block = blocks_[layer];
    single(prefix + "input_layernorm.weight", block.input_norm, block.input_norm_grad);
    block.qkv.add_slots(slots);
    single(prefix + "self_attn.q_norm.weight", block.q_norm.weight, block.q_norm.weight_grad);
    single(prefix + "self_attn.k_norm.weight", block.k_norm.weight, block.k_norm.weight_grad);
    block.o.add_slots(slots);
    single(prefix + "post_attention_layernorm.weight", block.middle_norm, block.middle_norm_grad);
    block.gate_up.add_slots(slots);
    block.down.add_slots(slots);
  }
  single("model.norm.weight", final_norm_, final_norm_grad_);
  single("lm_head.weight", head_, head_grad_);
  return slots;
}

BlockContext Decoder::make_context(const data::TokenLeaf& leaf) const {
  std::vector<std::int32_t> ends;
  ends.reserve(leaf.segments.size());
  for (const auto& segment : leaf.segments) {
    ends.push_back(segment.end);
  }
  return {nn::attention_runs(ends), nn::rope_tables(frequencies_, leaf.positions, device()),
          nullptr};
}

at::Tensor Decoder::embed(std::span<const std::int32_t> tokens) const {
  return at::index_select(embedding_, 0, index_tensor(tokens, device()));
}

at::Tensor Decoder::run_blocks(const data::TokenLeaf& leaf, const BlockContext& context,
                               std::vector<BlockSaved>* saved) const {
  at::Tensor x = embed(leaf.tokens);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    if (saved != nullptr && recompute_) {
      (*saved)[layer].input = x;
    }
    x = blocks_[layer].forward(x, context,
                               saved != nullptr && !recompute_ ? &(*saved)[layer] : nullptr);
  }
  return x;
}

void Decoder::backward_blocks(at::Tensor grad, const data::TokenLeaf& leaf,
                              const BlockContext& context, std::vector<BlockSaved>& saved) {
  // Below the lowest block that trains, nothing wants a gradient.
  std::size_t lowest = blocks_.size();
  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    if (blocks_[layer].trains()) {
      lowest = layer;
    }
  }
  const bool to_the_bottom = embedding_grad_.defined();
  for (std::size_t layer = blocks_.size(); layer-- > (to_the_bottom ? 0 : lowest);) {
    if (recompute_) {
      const at::Tensor input = saved[layer].input;
      blocks_[layer].forward(input, context, &saved[layer]);
    }
    grad = blocks_[layer].backward(std::move(grad), context, saved[layer],
                                   to_the_bottom || layer > lowest);
    saved[layer] = {};
  }
  if (to_the_bottom) {
    nn::add_rows(embedding_grad_, leaf.tokens, grad);
  }
}

LeafResult Decoder::accumulate(const data::Leaf& any_leaf) {
  const auto& leaf = tokens_of(any_leaf);
  const nn::SampleRows sample_rows{leaf.key, leaf.sample_ids, leaf.row_offsets};
  BlockContext context = make_context(leaf);
  context.rows = &sample_rows;
  std::vector<BlockSaved> saved(blocks_.size());
  const at::Tensor x = run_blocks(leaf, context, &saved);
  const auto norm = nn::rms_norm(x, final_norm_, config_.norm_eps);
  const Targets targets(leaf);
  const at::Tensor rows = index_tensor(targets.rows, device());
  nn::HeadGradients gradients;
  gradients.weight_grad = head_grad();
  at::Tensor loss;
  at::Tensor dnorm = at::zeros_like(x);
  {
    const at::Tensor hidden = at::index_select(norm.y, 0, rows);
    gradients.hidden = at::empty_like(hidden);
    loss = nn::head_cross_entropy(hidden, head(), targets.labels, &gradients, label_smoothing_);
    dnorm.index_copy_(0, rows.to(at::kLong), gradients.hidden);
    gradients.hidden.reset();
  }
  at::Tensor grad = at::zeros_like(x);
  nn::rms_norm_backward(dnorm, x, final_norm_, norm.rstd, grad, final_norm_grad_);
  dnorm.reset();
  backward_blocks(std::move(grad), leaf, context, saved);
  return {std::move(loss), leaf.targets};
}

LeafResult Decoder::evaluate(const data::Leaf& any_leaf) {
  const auto& leaf = tokens_of(any_leaf);
  const at::Tensor x = run_blocks(leaf, make_context(leaf), nullptr);
  const Targets targets(leaf);
  const at::Tensor hidden = at::index_select(x, 0, index_tensor(targets.rows, device()));
  const at::Tensor normed = nn::rms_norm(hidden, final_norm_, config_.norm_eps).y;
  return {nn::head_cross_entropy(normed, head(), targets.labels, nullptr), leaf.targets};
}

double Decoder::forward_operations(const data::Leaf& leaf) const {
  double weights = static_cast<double>(embedding_.numel());  // the head's, where it has none
  for (const auto& block : blocks_) {
    for (const auto* group : {&block.qkv, &block.o, &block.gate_up, &block.down}) {
      weights += static_cast<double>(group->weight.numel());
    }
  }
  return 2 * weights * static_cast<double>(leaf.units);
}

ActivationBytes Decoder::activation_bytes(const data::Leaf& leaf) const {
  const auto& c = config_;
  const auto bytes = static_cast<double>(c10::elementSize(dtype()));
  const auto tokens = static_cast<double>(leaf.units);
  const auto attention =
      static_cast<double>((2 * c.heads + 2 * c.kv_heads) * c.head_dim);  // q, k, v and the result
  double deltas = 0;
  for (const auto& block : blocks_) {
    deltas += static_cast<double>(block.kept_width());
  }
  const auto layers = static_cast<double>(c.layers);
  const auto hidden = static_cast<double>(c.hidden);
  const auto intermediate = static_cast<double>(c.intermediate);
  const double kept_per_block = 2 * hidden + attention + 2 * intermediate;
  const double kept = recompute_ ? layers * hidden + kept_per_block : layers * kept_per_block;
  // Above what is kept: one block's temporaries at their largest, in the MLP's backward.
  const double temporary = 2 * intermediate + 4 * hidden;
  const auto head_rows = static_cast<double>(nn::head_rows_at_once(leaf.units, head()));
  return {tokens * bytes * (kept + deltas + temporary),
          bytes * head_rows * static_cast<double>(c.vocabulary)};
}

at::Tensor Decoder::logits(const data::TokenLeaf& leaf) {
  const at::Tensor x = run_blocks(leaf, make_context(leaf), nullptr);
  return nn::product(nn::rms_norm(x, final_norm_, config_.norm_eps).y, head().t());
}

std::vector<KeyValueCache> Decoder::make_caches(std::int64_t capacity) const {
  std::vector<KeyValueCache> caches;
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const std::vector<std::int64_t> shape = {capacity, config_.kv_heads, config_.head_dim};
    caches.push_back(
        {at::empty(shape, embedding_.options()), at::empty(shape, embedding_.options()), 0});
  }
  return caches;
}

at::Tensor Decoder::decode(std::span<const std::int32_t> tokens,
                           std::vector<KeyValueCache>& caches) const {
  LS_ASSERT(!tokens.empty() && caches.size() == blocks_.size());
  std::vector<std::int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(caches.front().length));
  const auto rope = nn::rope_tables(frequencies_, positions, device());
  at::Tensor x = embed(tokens);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    x = blocks_[layer].decode(x, rope, caches[layer]);
  }
  const at::Tensor last = x.narrow(0, x.size(0) - 1, 1);
  return nn::product(nn::rms_norm(last, final_norm_, config_.norm_eps).y, head().t()).squeeze(0);
}

}  // namespace lorascale::models::decoder
