// One residual block, y = relu(branch(x) + shortcut(x)), basic or bottleneck: the unit of forward
// and backward.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "models/vision/conv_unit.hpp"

namespace lorascale::models::vision {

struct BlockSaved {
  std::vector<ConvUnitSaved> branch;
  ConvUnitSaved shortcut;
  at::Tensor output;
};

class ResidualBlock {
 public:
  // `prefix`, such as "layer1.0.", opens the names of its parts. From `in` channels to those of a
  // block that is `inside` wide.
  ResidualBlock(const ResNetConfig& config, const std::string& prefix, std::int64_t in,
                std::int64_t inside, std::int64_t stride, const at::TensorOptions& options);

  std::vector<ConvUnit> branch;      // ReLU after each but the last
  std::optional<ConvUnit> shortcut;  // where x has another shape than y

  [[nodiscard]] bool trains() const;
  // In the order of a checkpoint.
  std::vector<ConvUnit*> units();

  // With `saved`, keeps what backward needs.
  at::Tensor forward(const at::Tensor& x, const LeafContext& context, BlockSaved* saved) const;
  // Gradient of the block's input, or nothing when it is not needed. `grad` is consumed.
  at::Tensor backward(at::Tensor grad, const LeafContext& context, const BlockSaved& saved,
                      bool need_dx) const;

  [[nodiscard]] MapSize output_size(const MapSize& input) const;
  // Numbers that forward keeps for a sample, besides the input.
  [[nodiscard]] std::int64_t kept(const MapSize& input) const;

 private:
  at::Tensor backward_branch(const at::Tensor& grad, const LeafContext& context,
                             const BlockSaved& saved, bool need_dx) const;
};

}  // namespace lorascale::models::vision
