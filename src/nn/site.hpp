// A place in a model that an adapter may attach to: one linear layer (a member of a group, perhaps)
// or one convolution.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "nn/deltas.hpp"

namespace lorascale::nn {

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
  at::Tensor bias;            // [out], or undefined
  Conv2dGeometry geometry{};  // of kConv2d
  Deltas* deltas = nullptr;   // of the layer, which outlives the site
  std::int64_t first = 0;     // channel of the layer's output that is the site's first
  // What it is called in LoRA files of sd-scripts' form (adapters/formats/kohya.hpp), empty where
  // models of the kind have none; and whether files of the model hold it as a convolution.
  std::string kohya_name{};
  bool stored_as_convolution = false;

  [[nodiscard]] std::int64_t out_features() const { return weight.size(0); }
  [[nodiscard]] std::int64_t in_features() const { return weight.size(1) * geometry.groups; }
  // After those that are there.
  void attach(std::unique_ptr<Delta> delta) const {
    deltas->attach(first, out_features(), std::move(delta));
  }
};

}  // namespace lorascale::nn
