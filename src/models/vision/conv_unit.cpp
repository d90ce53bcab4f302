#include "models/vision/conv_unit.hpp"

#include <ATen/ops/empty.h>

namespace lorascale::models::vision {

ConvUnit::ConvUnit(const ResNetConfig& config, const Shape& shape, const std::string& conv_name,
                   const std::string& norm_name, const at::TensorOptions& options) {
  const auto& [in, out, kernel, stride] = shape;
  conv.name = conv_name;
  conv.geometry = {{stride, stride}, {kernel / 2, kernel / 2}, 1};
  conv.weight = at::empty({out, in, kernel, kernel}, options);
  const auto name = [&](auto& norm) {
    norm.name = norm_name;
    norm.weight = at::empty({out}, options);
    norm.bias = at::empty({out}, options);
    norm.eps = config.norm_eps;
  };
  switch (config.norm) {
    case NormKind::kBatch:
      name(batch.emplace());
      batch->ghost_batch = config.ghost_batch;
      break;
    case NormKind::kGroup:
      name(group.emplace());
      group->groups = config.groups;
      break;
    case NormKind::kNone:
      conv.bias = at::empty({out}, options);
      break;
  }
}

bool ConvUnit::trains() const {
  return conv.trains() || (batch && batch->trains()) || (group && group->trains());
}

at::Tensor ConvUnit::forward(const at::Tensor& x, const LeafContext& context,
                             ConvUnitSaved* saved) const {
  at::Tensor y = conv.forward(x, context.rows, saved != nullptr ? &saved->conv : nullptr);
  if (saved != nullptr) {
    saved->input = x;
  }
  if (batch) {
    return batch->forward(
        y, saved != nullptr ? &saved->batch : nullptr,
        context.statistics.defined() ? own_statistics(context.statistics) : at::Tensor());
  }
  if (group) {
    return group->forward(y, saved != nullptr ? &saved->group : nullptr);
  }
  return y;
}

at::Tensor ConvUnit::backward(const at::Tensor& dy, const LeafContext& context,
                              const ConvUnitSaved& saved, bool need_dx) const {
  const bool below_norm = need_dx || conv.trains();
  at::Tensor dconv = dy;
  if (batch) {
    dconv = batch->backward(dy, saved.batch, below_norm);
  } else if (group) {
    dconv = group->backward(dy, saved.group, below_norm);
  }
  return below_norm ? conv.backward(dconv, saved.input, context.rows, saved.conv, need_dx)
                    : at::Tensor();
}

void ConvUnit::add_slots(std::vector<nn::ParameterSlot>& slots) {
  const auto add = [&](const std::string& key, at::Tensor& value, at::Tensor& grad) {
    slots.push_back({{{key, value.sizes().vec()}}, &value, &grad});
  };
  const auto add_layer = [&](auto& layer) {
    add(layer.name + ".weight", layer.weight, layer.weight_grad);
    if (layer.bias.defined()) {
      add(layer.name + ".bias", layer.bias, layer.bias_grad);
    }
  };
  add_layer(conv);
  if (batch) {
    add_layer(*batch);
  } else if (group) {
    add_layer(*group);
  }
}

void ConvUnit::add_buffers(std::vector<nn::ParameterSlot>& slots) {
  if (batch) {
    const std::vector<std::int64_t> shape = {channels()};
    slots.push_back({{{batch->name + ".running_mean", shape}}, &batch->running_mean, nullptr});
    slots.push_back({{{batch->name + ".running_var", shape}}, &batch->running_var, nullptr});
  }
}

void ConvUnit::place_statistics(const at::Tensor& statistics, std::int64_t first) {
  if (batch) {
    first_statistic_ = first;
    const at::Tensor own = own_statistics(statistics);
    batch->running_mean = own[0];
    batch->running_var = own[1];
  }
}

at::Tensor ConvUnit::own_statistics(const at::Tensor& statistics) const {
  return statistics.narrow(0, first_statistic_, statistics_size()).view({2, channels()});
}

MapSize ConvUnit::output_size(const MapSize& input) const {
  const auto side = [&](std::int64_t size, std::size_t i) {
    return (size + 2 * conv.geometry.padding[i] - conv.weight.size(static_cast<int>(i) + 2)) /
               conv.geometry.stride[i] +
           1;
  };
  return {side(input.height, 0), side(input.width, 1)};
}

std::int64_t ConvUnit::kept(const MapSize& output) const {
  const bool norm_keeps_input = (batch && batch->trains()) || group;
  return (conv.deltas.kept_width() + (norm_keeps_input ? channels() : 0)) * output.positions();
}

}  // namespace lorascale::models::vision
