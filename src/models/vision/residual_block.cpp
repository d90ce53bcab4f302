#include "models/vision/residual_block.hpp"

#include <algorithm>

#include "nn/relu.hpp"

namespace lorascale::models::vision {

ResidualBlock::ResidualBlock(const ResNetConfig& config, const std::string& prefix, std::int64_t in,
                             std::int64_t inside, std::int64_t stride,
                             const at::TensorOptions& options) {
  const auto out = config.block_channels(inside);
  const auto add = [&](const ConvUnit::Shape& shape) {
    const auto number = std::to_string(branch.size() + 1);
    branch.emplace_back(config, shape, prefix + "conv" + number, prefix + "bn" + number, options);
  };
  if (config.block == BlockKind::kBottleneck) {
    add({in, inside, 1, 1});
    add({inside, inside, 3, stride});
    add({inside, out, 1, 1});
  } else {
    add({in, inside, 3, stride});
    add({inside, out, 3, 1});
  }
  if (stride != 1 || in != out) {
    shortcut.emplace(config, ConvUnit::Shape{in, out, 1, stride}, prefix + "downsample.0",
                     prefix + "downsample.1", options);
  }
}

bool ResidualBlock::trains() const {
  return std::ranges::any_of(branch, &ConvUnit::trains) || (shortcut && shortcut->trains());
}

std::vector<ConvUnit*> ResidualBlock::units() {
  std::vector<ConvUnit*> all;
  for (auto& unit : branch) {
    all.push_back(&unit);
  }
  if (shortcut) {
    all.push_back(&*shortcut);
  }
  return all;
}

at::Tensor ResidualBlock::forward(const at::Tensor& x, const LeafContext& context,
                                  BlockSaved* saved) const {
  at::Tensor y = x;
  for (std::size_t i = 0; i < branch.size(); ++i) {
    y = branch[i].forward(y, context, saved != nullptr ? &saved->branch.emplace_back() : nullptr);
    if (i + 1 < branch.size()) {
      nn::relu(y);
    }
  }
  y.add_(shortcut ? shortcut->forward(x, context, saved != nullptr ? &saved->shortcut : nullptr)
                  : x);
  nn::relu(y);
  if (saved != nullptr) {
    saved->output = y;
  }
  return y;
}

// Down to the lowest unit that trains, or to the input.
at::Tensor ResidualBlock::backward_branch(const at::Tensor& grad, const LeafContext& context,
                                          const BlockSaved& saved, bool need_dx) const {
  const auto first =
      static_cast<std::size_t>(std::ranges::find_if(branch, &ConvUnit::trains) - branch.begin());
  at::Tensor d = grad;
  for (std::size_t i = branch.size(); i-- > (need_dx ? 0 : first);) {
    const bool needed = need_dx || i > first;
    d = branch[i].backward(d, context, saved.branch[i], needed);
    if (i > 0 && needed) {
      nn::relu_backward(d, saved.branch[i].input);
    }
  }
  return d;
}

at::Tensor ResidualBlock::backward(at::Tensor grad, const LeafContext& context,
                                   const BlockSaved& saved, bool need_dx) const {
  nn::relu_backward(grad, saved.output);
  at::Tensor dx = backward_branch(grad, context, saved, need_dx);
  if (shortcut && (need_dx || shortcut->trains())) {
    grad = shortcut->backward(grad, context, saved.shortcut, need_dx);
  }
  return need_dx ? dx.add_(grad) : at::Tensor();
}

MapSize ResidualBlock::output_size(const MapSize& input) const {
  MapSize size = input;
  for (const auto& unit : branch) {
    size = unit.output_size(size);
  }
  return size;
}

std::int64_t ResidualBlock::kept(const MapSize& input) const {
  MapSize size = input;
  std::int64_t numbers = 0;
  for (const auto& unit : branch) {  // each with what comes of it, after ReLU
    size = unit.output_size(size);
    numbers += unit.kept(size) + unit.channels() * size.positions();
  }
  return numbers + (shortcut ? shortcut->kept(size) : 0);
}

}  // namespace lorascale::models::vision
