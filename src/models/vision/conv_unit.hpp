// A convolution and the normalisation after it, forward and backward: what stems, blocks and
// shortcuts of vision models are made of.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "models/vision/resnet_config.hpp"
#include "nn/batch_norm.hpp"
#include "nn/conv2d.hpp"
#include "nn/group_norm.hpp"
#include "nn/parameter_slot.hpp"

namespace lorascale::models::vision {

// Per leaf, shared by all units; neither is there outside training.
struct LeafContext {
  const nn::SampleRows* rows = nullptr;
  at::Tensor statistics;  // fp32, of all batch norms: added to; undefined where none is trained
};

// Sides of an activation.
struct MapSize {
  std::int64_t height = 0, width = 0;
  [[nodiscard]] std::int64_t positions() const { return height * width; }
};

struct ConvUnitSaved {
  at::Tensor input;
  nn::DeltasSaved conv;
  nn::BatchNormSaved batch;
  nn::GroupNormSaved group;
};

class ConvUnit {
 public:
  struct Shape {
    std::int64_t in = 0, out = 0, kernel = 1, stride = 1;
  };
  // Weights are allocated, not filled. Padding keeps the sides but for the stride.
  ConvUnit(const ResNetConfig& config, const Shape& shape, const std::string& conv_name,
           const std::string& norm_name, const at::TensorOptions& options);

  nn::Conv2d conv;  // with a bias where no normalisation follows
  std::optional<nn::BatchNorm> batch;
  std::optional<nn::GroupNorm> group;

  [[nodiscard]] std::int64_t channels() const { return conv.weight.size(0); }
  // True where the unit has parameters of its own to train.
  [[nodiscard]] bool trains() const;

  // x: [samples, in, height, width]. With `saved`, keeps what backward needs.
  at::Tensor forward(const at::Tensor& x, const LeafContext& context, ConvUnitSaved* saved) const;
  // Gradient of the input, or nothing when it is not needed. dy stays as it is.
  at::Tensor backward(const at::Tensor& dy, const LeafContext& context, const ConvUnitSaved& saved,
                      bool need_dx) const;

  void add_slots(std::vector<nn::ParameterSlot>& slots);
  void add_buffers(std::vector<nn::ParameterSlot>& slots);
  // Numbers of a batch norm in a vector of statistics: mean, then variance.
  [[nodiscard]] std::int64_t statistics_size() const { return batch ? 2 * channels() : 0; }
  // Makes [first, + statistics_size()) of it the running mean and variance.
  void place_statistics(const at::Tensor& statistics, std::int64_t first);
  // The unit's part of a vector of statistics, [2, channels].
  [[nodiscard]] at::Tensor own_statistics(const at::Tensor& statistics) const;

  [[nodiscard]] MapSize output_size(const MapSize& input) const;
  // Numbers that forward keeps for a sample, besides the input.
  [[nodiscard]] std::int64_t kept(const MapSize& output) const;

 private:
  std::int64_t first_statistic_ = 0;
};

}  // namespace lorascale::models::vision
