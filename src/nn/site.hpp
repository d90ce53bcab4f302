// A place in a model that an adapter may attach to: one linear layer (a member of a group, perhaps)
// or one convolution.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "nn/delta.hpp"

namespace lorascale::nn {

struct AttachedDelta {
  std::size_t member = 0;  // of a linear group; 0 elsewhere
  std::unique_ptr<Delta> delta;
};

struct Conv2dGeometry {
  std::array<std::int64_t, 2> stride = {1, 1};
  std::array<std::int64_t, 2> padding = {0, 0};
  std::int64_t groups = 1;
};

enum class SiteKind { kLinear, kConv2d };

struct Site {
  std::string name;  // module path in the checkpoint, without ".weight"
  SiteKind kind = SiteKind::kLinear;
  // A view into the model: [out, in], or [out, in / groups, height, width].
  at::Tensor weight;
  Conv2dGeometry geometry{};                     // of kConv2d
  std::vector<AttachedDelta>* deltas = nullptr;  // of the layer, which outlives the site
  std::size_t member = 0;

  [[nodiscard]] std::int64_t out_features() const { return weight.size(0); }
  [[nodiscard]] std::int64_t in_features() const { return weight.size(1) * geometry.groups; }
  void attach(std::unique_ptr<Delta> delta) const { deltas->push_back({member, std::move(delta)}); }
};

}  // namespace lorascale::nn
