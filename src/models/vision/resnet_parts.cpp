// The parts of a ResNet: made, filled and listed.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "models/initial_values.hpp"
#include "models/vision/resnet.hpp"

namespace lorascale::models::vision {
namespace {

ConvUnit make_stem(const ResNetConfig& config, const at::TensorOptions& options) {
  const bool large = config.stem == StemKind::kLarge;
  return {config,
          {config.in_channels, config.width, large ? 7 : 3, large ? 2 : 1},
          "conv1",
          "bn1",
          options};
}

}  // namespace

ResNet::ResNet(ResNetConfig config, at::ScalarType dtype, at::Device device)
    : config_(std::move(config)),
      stem_(make_stem(config_, at::TensorOptions().dtype(dtype).device(device))),
      channels_last_(device.is_cuda()) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  auto channels = config_.width;
  auto inside = config_.width;
  for (std::size_t stage = 0; stage < config_.layers.size(); ++stage) {
    for (std::int64_t i = 0; i < config_.layers[stage]; ++i) {
      const auto prefix = "layer" + std::to_string(stage + 1) + "." + std::to_string(i) + ".";
      const std::int64_t stride = stage > 0 && i == 0 ? 2 : 1;
      blocks_.emplace_back(config_, prefix, channels, inside, stride, options);
      channels = config_.block_channels(inside);
    }
    inside *= 2;
  }
  fc_.members = {{"fc", config_.classes, 0}};
  fc_.weight = at::empty({config_.classes, channels}, options);
  fc_.bias = at::empty({config_.classes}, options);
  if (config_.norm == NormKind::kBatch) {
    std::int64_t numbers = 0;
    for (const auto* unit : units()) {
      numbers += unit->statistics_size();
    }
    statistics_ = at::zeros({numbers}, options.dtype(at::kFloat));
    std::int64_t first = 0;
    for (auto* unit : units()) {
      unit->place_statistics(statistics_, first);
      unit->batch->running_var.fill_(1);
      first += unit->statistics_size();
    }
  }
}

ResNet::ResNet(ResNetConfig config, at::ScalarType dtype, at::Device device, std::uint64_t seed)
    : ResNet(std::move(config), dtype, device) {
  initialise(seed);
}

// As torchvision does: convolutions normal with variance 2 / fan-out (He et al. 2015), norms one
// and zero, the head uniform in +-1/sqrt(fan-in). Without normalisation each block starts as its
// shortcut (Zhang et al. 2019), biases at zero: the variance would double with every block.
void ResNet::initialise(std::uint64_t seed) {
  for (auto* unit : units()) {
    auto& conv = unit->conv;
    const auto fan_out = conv.weight.numel() / conv.weight.size(1);
    fill_normal(conv.weight, std::sqrt(2.0 / static_cast<double>(fan_out)), seed,
                conv.name + ".weight");
    const auto start = [](auto& norm) {
      norm.weight.fill_(1);
      norm.bias.zero_();
    };
    if (unit->batch) {
      start(*unit->batch);
    } else if (unit->group) {
      start(*unit->group);
    } else {
      conv.bias.zero_();
    }
  }
  if (config_.norm == NormKind::kNone) {
    for (auto& block : blocks_) {
      block.branch.back().conv.weight.zero_();
    }
  }
  const double bound = 1.0 / std::sqrt(static_cast<double>(fc_.in_features()));
  fill_uniform(fc_.weight, bound, seed, "fc.weight");
  fill_uniform(fc_.bias, bound, seed, "fc.bias");
}

std::vector<ConvUnit*> ResNet::units() {
  std::vector<ConvUnit*> all = {&stem_};
  for (auto& block : blocks_) {
    const auto of_block = block.units();
    all.insert(all.end(), of_block.begin(), of_block.end());
  }
  return all;
}

std::vector<const ConvUnit*> ResNet::units() const {
  const auto all = const_cast<ResNet*>(this)->units();
  return {all.begin(), all.end()};
}

std::vector<nn::Site> ResNet::sites() {
  std::vector<nn::Site> sites;
  for (auto* unit : units()) {
    sites.push_back(unit->conv.site());
  }
  sites.push_back(fc_.sites().front());
  return sites;
}

std::vector<nn::ParameterSlot> ResNet::parameter_slots() {
  std::vector<nn::ParameterSlot> slots;
  for (auto* unit : units()) {
    unit->add_slots(slots);
  }
  fc_.add_slots(slots);
  return slots;
}

std::vector<nn::ParameterSlot> ResNet::buffers() {
  std::vector<nn::ParameterSlot> slots;
  for (auto* unit : units()) {
    unit->add_buffers(slots);
  }
  return slots;
}

}  // namespace lorascale::models::vision
