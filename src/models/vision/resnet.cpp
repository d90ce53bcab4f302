#include "models/vision/resnet.hpp"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <numeric>

#include "base/error.hpp"
#include "nn/relu.hpp"
#include "nn/softmax_loss.hpp"

namespace lorascale::models::vision {
namespace {

const data::ImageLeaf& images(const data::Leaf& leaf) {
  const auto* found = dynamic_cast<const data::ImageLeaf*>(&leaf);
  LS_ASSERT(found != nullptr);
  return *found;
}

MapSize pooled_size(const MapSize& size) {
  return {(size.height + 1) / 2, (size.width + 1) / 2};
}

LeafResult result_of(const data::ImageLeaf& leaf, const nn::SoftmaxLoss& loss) {
  LeafResult result{loss.sum, 0};
  result.targets = std::ranges::count_if(leaf.labels, [](auto label) { return label >= 0; });
  const at::Tensor targets =
      at::scalar_tensor(static_cast<double>(result.targets), loss.correct.options());
  result.measures = at::stack({loss.correct, targets}).view({1, 2});
  return result;
}

}  // namespace

at::Tensor ResNet::pixels(const data::ImageLeaf& leaf) const {
  const auto samples = static_cast<std::int64_t>(leaf.labels.size());
  LS_ASSERT(samples > 0 && leaf.labels.size() == leaf.sample_ids.size());
  LS_ASSERT(std::ssize(leaf.pixels) == samples * leaf.channels * leaf.height * leaf.width);
  if (leaf.channels != config_.in_channels) {
    throw_bad_input("the pictures have " + std::to_string(leaf.channels) +
                    " channels, the model takes " + std::to_string(config_.in_channels) +
                    " (in_channels in its config.json); convert them, or take another model");
  }
  for (const auto label : leaf.labels) {
    if (label >= config_.classes) {
      throw_bad_input("a picture is of class " + std::to_string(label) + ", the model has " +
                      std::to_string(config_.classes) +
                      " (classes in its config.json); take a data set of its classes, or a model "
                      "with a head for more");
    }
  }
  const at::Tensor host =
      at::from_blob(const_cast<float*>(leaf.pixels.data()),
                    {samples, leaf.channels, leaf.height, leaf.width}, at::kFloat);
  return host
      .to(at::TensorOptions().device(device()).dtype(dtype()), /*non_blocking=*/false,
          /*copy=*/true)
      .contiguous(channels_last_ ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

std::size_t ResNet::first_trained() const {
  if (stem_.trains()) {
    return 0;
  }
  return 1 + static_cast<std::size_t>(std::ranges::find_if(blocks_, &ResidualBlock::trains) -
                                      blocks_.begin());
}

at::Tensor ResNet::forward_stem(const at::Tensor& x, const LeafContext& context,
                                Saved* saved) const {
  at::Tensor y = stem_.forward(x, context, saved != nullptr ? &saved->stem : nullptr);
  nn::relu(y);
  if (saved != nullptr) {
    saved->stem_output = y;
  }
  return config_.stem == StemKind::kLarge
             ? nn::max_pool(y, saved != nullptr ? &saved->pool : nullptr)
             : y;
}

at::Tensor ResNet::forward(const at::Tensor& x, const LeafContext& context, Saved* saved) const {
  const auto keeps_from = saved != nullptr ? first_trained() : blocks_.size() + 2;
  at::Tensor y = forward_stem(x, context, keeps_from == 0 ? saved : nullptr);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const bool keeps = keeps_from <= i + 1;
    y = blocks_[i].forward(y, context, keeps ? &saved->blocks[i] : nullptr);
  }
  const at::Tensor features = nn::mean_pool(y);
  if (saved != nullptr) {
    saved->last = {y.size(2), y.size(3)};
    saved->features = features;
  }
  return fc_.forward(features, context.rows, saved != nullptr ? &saved->fc : nullptr);
}

void ResNet::backward(const at::Tensor& dlogits, const LeafContext& context,
                      const Saved& saved) const {
  const auto first = first_trained();
  const bool below_head = first <= blocks_.size();
  const at::Tensor dfeatures =
      fc_.backward(dlogits, saved.features, context.rows, saved.fc, below_head);
  if (!below_head) {
    return;
  }
  at::Tensor grad = nn::mean_pool_backward(dfeatures, saved.last.height, saved.last.width);
  for (std::size_t part = blocks_.size(); part >= std::max<std::size_t>(first, 1); --part) {
    grad = blocks_[part - 1].backward(std::move(grad), context, saved.blocks[part - 1],
                                      /*need_dx=*/part > first);
  }
  if (first == 0) {
    backward_stem(std::move(grad), context, saved);
  }
}

void ResNet::backward_stem(at::Tensor grad, const LeafContext& context, const Saved& saved) const {
  if (config_.stem == StemKind::kLarge) {
    grad = nn::max_pool_backward(grad, saved.pool);
  }
  nn::relu_backward(grad, saved.stem_output);
  stem_.backward(grad, context, saved.stem, /*need_dx=*/false);
}

bool ResNet::trains_norms() const {
  return std::ranges::any_of(units(),
                             [](const auto* unit) { return unit->batch && unit->batch->trains(); });
}

LeafResult ResNet::accumulate(const data::Leaf& any) {
  const auto& leaf = images(any);
  const at::Tensor x = pixels(leaf);
  nn::SampleRows rows{leaf.key, leaf.sample_ids, {}};
  rows.offsets.resize(leaf.sample_ids.size() + 1);
  std::iota(rows.offsets.begin(), rows.offsets.end(), 0);
  LeafContext context{&rows, {}};
  if (trains_norms()) {
    context.statistics = at::zeros_like(statistics_);
  }
  Saved saved;
  saved.blocks.resize(blocks_.size());
  at::Tensor logits = forward(x, context, &saved);
  auto result = result_of(leaf, nn::softmax_loss_backward(logits, leaf.labels, label_smoothing_));
  backward(logits, context, saved);
  result.statistics = context.statistics;
  return result;
}

LeafResult ResNet::evaluate(const data::Leaf& any) {
  const auto& leaf = images(any);
  return result_of(leaf, nn::softmax_loss(logits(leaf), leaf.labels));
}

at::Tensor ResNet::logits(const data::ImageLeaf& leaf) const {
  return forward(pixels(leaf), {}, nullptr);
}

// Of norms that are not trained nothing was measured: they stay.
void ResNet::move_statistics(const at::Tensor& mean, const at::Tensor& skip) {
  const double share = config_.norm_momentum;
  for (const auto* unit : units()) {
    if (unit->batch && unit->batch->trains()) {
      at::Tensor state = unit->own_statistics(statistics_);
      const at::Tensor moved = (state * (1 - share)).add_(unit->own_statistics(mean), share);
      state.copy_(at::where(skip, state, moved));
    }
  }
}

double ResNet::forward_operations(const data::Leaf& any) const {
  const auto& leaf = images(any);
  const auto of_unit = [](const ConvUnit& unit, const MapSize& input) {
    return static_cast<double>(unit.conv.weight.numel()) *
           static_cast<double>(unit.output_size(input).positions());
  };
  MapSize size = {leaf.height, leaf.width};
  double products = of_unit(stem_, size) + static_cast<double>(fc_.weight.numel());
  size = stem_.output_size(size);
  if (config_.stem == StemKind::kLarge) {
    size = pooled_size(size);
  }
  for (const auto& block : blocks_) {
    MapSize inside = size;
    for (const auto& unit : block.branch) {
      products += of_unit(unit, inside);
      inside = unit.output_size(inside);
    }
    products += block.shortcut ? of_unit(*block.shortcut, size) : 0;
    size = inside;
  }
  return 2 * products * static_cast<double>(leaf.labels.size());
}

MapSize ResNet::last_map(const MapSize& picture) const {
  MapSize size = stem_.output_size(picture);
  if (config_.stem == StemKind::kLarge) {
    size = pooled_size(size);
  }
  for (const auto& block : blocks_) {
    size = block.output_size(size);
  }
  return size;
}

ActivationBytes ResNet::activation_bytes(const data::Leaf& any) const {
  const auto& leaf = images(any);
  const auto first = first_trained();
  const auto samples = static_cast<double>(leaf.labels.size());
  const auto element = static_cast<double>(at::elementSize(dtype()));
  MapSize size = {leaf.height, leaf.width};
  auto channels = config_.in_channels;
  std::int64_t numbers = 0, bytes = 0;  // of a sample
  const auto keep_input = [&](std::size_t part) {
    numbers += first == part ? channels * size.positions() : 0;
  };
  keep_input(0);
  size = stem_.output_size(size);
  channels = stem_.channels();
  if (first == 0) {
    numbers += stem_.kept(size) + channels * size.positions();
  }
  if (config_.stem == StemKind::kLarge) {
    size = pooled_size(size);
    if (first == 0) {
      numbers += channels * size.positions();
      bytes += channels * size.positions();  // where the maxima were
    }
  }
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    keep_input(i + 1);
    if (first <= i + 1) {
      numbers += blocks_[i].kept(size);
    }
    size = blocks_[i].output_size(size);
    channels = blocks_[i].branch.back().channels();
  }
  numbers += fc_.in_features() + fc_.deltas.kept_width();
  return {samples * (static_cast<double>(numbers) * element + static_cast<double>(bytes)),
          samples * static_cast<double>(config_.classes) * element};
}

}  // namespace lorascale::models::vision
