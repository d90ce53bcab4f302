// A convolution with deltas of adapters on it: y = x * W + b, changed by each delta in turn.
// Forward and backward by hand; gradients are added to fp32 views of the flat gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "nn/site.hpp"

namespace lorascale::nn {

class Conv2d {
 public:
  std::string name;        // module path in the checkpoint, without ".weight"
  at::Tensor weight;       // [out, in / groups, height, width]
  at::Tensor bias;         // [out], or undefined
  at::Tensor weight_grad;  // fp32 like weight; defined when the weight is trained
  at::Tensor bias_grad;
  Conv2dGeometry geometry;
  Deltas deltas;

  // True where a gradient of this layer's own parameters is wanted.
  [[nodiscard]] bool trains() const { return weight_grad.defined() || !deltas.empty(); }
  // The layer must stay where it is.
  Site site();

  // x: [samples, in, height, width]. `rows`, one a sample, is null outside training: no dropout.
  at::Tensor forward(const at::Tensor& x, const SampleRows* rows, DeltasSaved* saved) const;
  // Adds the parameters' gradients; returns dx, or nothing when it is not needed. dy stays as it
  // is.
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                      const DeltasSaved& saved, bool need_dx) const;
};

}  // namespace lorascale::nn
