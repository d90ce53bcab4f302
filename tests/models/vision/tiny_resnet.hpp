// Small residual networks with pseudo-random weights, leaves of pictures, and the same networks
// written out with torch's operators in fp64.
#pragma once

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.hpp"
#include "data/images/image_leaf.hpp"
#include "models/vision/resnet.hpp"
#include "support/tensors.hpp"

namespace lorascale::models::vision {

// Two stages with a shortcut that is a convolution, and one that is none; 5 classes.
inline ResNetConfig tiny_config(BlockKind block, NormKind norm) {
  ResNetConfig config;
  config.block = block;
  config.norm = norm;
  config.layers = {2, 1};
  config.width = 4;
  config.groups = 2;
  config.stem = StemKind::kSmall;
  config.classes = 5;
  config.norm_eps = 1e-3;
  return config;
}

// Picture i is the same in every leaf that holds it.
inline data::ImageLeaf pictures(const std::vector<std::int64_t>& ids, std::int64_t height = 6,
                                std::int64_t width = 5, std::int64_t channels = 3) {
  data::ImageLeaf leaf;
  leaf.key = {11, 2};
  leaf.sample_ids = ids;
  leaf.units = static_cast<std::int64_t>(ids.size());
  leaf.channels = channels;
  leaf.height = height;
  leaf.width = width;
  for (const auto id : ids) {
    const auto picture =
        test::noise({channels * height * width}, 1000 + static_cast<std::uint64_t>(id), 1.5);
    const auto* data = picture.const_data_ptr<float>();
    leaf.pixels.insert(leaf.pixels.end(), data, data + picture.numel());
    leaf.labels.push_back(static_cast<std::int32_t>(id % 6) - 1);  // one in six is no target
  }
  return leaf;
}

inline std::int64_t targets_of(const data::ImageLeaf& leaf) {
  return std::ranges::count_if(leaf.labels, [](auto label) { return label >= 0; });
}

inline at::Tensor pixels_of(const data::ImageLeaf& leaf) {
  return at::tensor(at::ArrayRef<float>(leaf.pixels), at::kFloat)
      .view({static_cast<std::int64_t>(leaf.labels.size()), leaf.channels, leaf.height, leaf.width})
      .to(at::kDouble);
}

// Every weight from its name, none of them special: norms around one, variances above zero.
inline std::unique_ptr<ResNet> tiny_resnet(const ResNetConfig& config,
                                           at::ScalarType dtype = at::kDouble) {
  auto model = std::make_unique<ResNet>(config, dtype, at::kCPU);
  for (const auto& slot : model->file_slots()) {
    const auto& key = slot.parts[0].key;
    const auto& shape = slot.parts[0].shape;
    const double fan_in = static_cast<double>(slot.value->numel()) / static_cast<double>(shape[0]);
    auto value = test::noise(shape, fnv1a64(key));
    if (shape.size() > 1) {
      value *= std::sqrt(3.0 / fan_in);
    } else if (key.ends_with("weight") || key.ends_with("running_var")) {
      value = 1 + 0.5 * value;
    } else {
      value *= 0.3;
    }
    slot.value->copy_(value);
  }
  return model;
}

using Gradients = std::map<std::string, at::Tensor>;

// Views for the gradients of the slots that `trained` names, as an adapter sets them.
template <typename Trained>
Gradients train(ResNet& model, Trained trained) {
  Gradients gradients;
  for (const auto& slot : model.parameter_slots()) {
    const auto& key = slot.parts[0].key;
    *slot.grad = at::Tensor();
    if (trained(key)) {
      const bool wide = model.dtype() == at::kDouble;
      *slot.grad = at::zeros(slot.parts[0].shape, wide ? at::kDouble : at::kFloat);
      gradients[key] = *slot.grad;
    }
  }
  return gradients;
}
inline Gradients train_all(ResNet& model) {
  return train(model, [](const std::string&) { return true; });
}

// torchvision's ResNet.forward by torch's operators, on copies that autograd follows.
class Reference {
 public:
  explicit Reference(ResNet& model, at::ScalarType type = at::kDouble)
      : config_(model.config()), type_(type) {
    for (const auto& slot : model.parameter_slots()) {
      weights[slot.parts[0].key] = slot.value->to(type).clone().requires_grad_(true);
    }
    for (const auto& slot : model.buffers()) {
      weights[slot.parts[0].key] = slot.value->to(type).clone();
    }
  }

  // Whether batch norms normalise by their input, and then also move their running state.
  bool training = true;
  std::map<std::string, at::Tensor> weights;

  at::Tensor logits(at::Tensor x) {
    const bool large = config_.stem == StemKind::kLarge;
    x = unit(x, "conv1", "bn1", large ? 2 : 1, large ? 3 : 1).relu();
    if (large) {
      x = at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1});
    }
    for (std::size_t stage = 0; stage < config_.layers.size(); ++stage) {
      for (std::int64_t i = 0; i < config_.layers[stage]; ++i) {
        x = block(x, "layer" + std::to_string(stage + 1) + "." + std::to_string(i) + ".",
                  stage > 0 && i == 0 ? 2 : 1);
      }
    }
    return at::linear(x.mean({2, 3}), weights.at("fc.weight"), weights.at("fc.bias"));
  }

  at::Tensor loss(const data::ImageLeaf& leaf, double smoothing = 0) {
    const auto labels = at::tensor(
        at::IntArrayRef(std::vector<std::int64_t>(leaf.labels.begin(), leaf.labels.end())),
        at::kLong);
    return at::cross_entropy_loss(logits(pixels_of(leaf).to(type_)), labels, {}, at::Reduction::Sum,
                                  -1, smoothing);
  }

 private:
  at::Tensor normalise(const at::Tensor& x, const std::string& name) {
    if (config_.norm == NormKind::kNone) {
      return x;
    }
    const auto& weight = weights.at(name + ".weight");
    const auto& bias = weights.at(name + ".bias");
    if (config_.norm == NormKind::kGroup) {
      return at::group_norm(x, config_.groups, weight, bias, config_.norm_eps);
    }
    std::vector<at::Tensor> groups;
    const auto size = training && config_.ghost_batch > 0 ? config_.ghost_batch : x.size(0);
    for (const auto& group : x.split(size)) {
      groups.push_back(at::batch_norm(group, weight, bias, weights.at(name + ".running_mean"),
                                      weights.at(name + ".running_var"), training,
                                      config_.norm_momentum, config_.norm_eps, false));
    }
    return at::cat(groups);
  }

  at::Tensor unit(const at::Tensor& x, const std::string& conv, const std::string& norm,
                  std::int64_t stride, std::int64_t padding) {
    const auto bias = config_.norm == NormKind::kNone ? weights.at(conv + ".bias") : at::Tensor();
    return normalise(
        at::conv2d(x, weights.at(conv + ".weight"), bias, {stride, stride}, {padding, padding}),
        norm);
  }

  at::Tensor block(const at::Tensor& x, const std::string& at, std::int64_t stride) {
    at::Tensor y;
    if (config_.block == BlockKind::kBottleneck) {
      y = unit(x, at + "conv1", at + "bn1", 1, 0).relu();
      y = unit(y, at + "conv2", at + "bn2", stride, 1).relu();
      y = unit(y, at + "conv3", at + "bn3", 1, 0);
    } else {
      y = unit(x, at + "conv1", at + "bn1", stride, 1).relu();
      y = unit(y, at + "conv2", at + "bn2", 1, 1);
    }
    const bool same = !weights.contains(at + "downsample.0.weight");
    return (y + (same ? x : unit(x, at + "downsample.0", at + "downsample.1", stride, 0))).relu();
  }

  ResNetConfig config_;
  at::ScalarType type_;
};

}  // namespace lorascale::models::vision
