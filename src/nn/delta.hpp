// A delta is what an adapter does to one layer: it changes the layer's output, y' = d(y, x), and
// has parameters of its own. LoRA adds a low-rank product; others scale. Forward and backward by
// hand; gradients are added to fp32 views of the flat gradient. Rows of x and y are the layer's
// own: [tokens, width] of a linear one, [samples, channels, height, width] of a convolution.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "nn/sample_rows.hpp"

namespace lorascale::nn {

// What a forward keeps for its backward, besides x.
using DeltaSaved = std::vector<at::Tensor>;

class Delta {
 public:
  Delta() = default;
  Delta(const Delta&) = delete;
  Delta& operator=(const Delta&) = delete;
  virtual ~Delta() = default;

  // Changes `y`, the layer's output before it, in place. `rows` is null outside training, where
  // nothing is drawn; `saved` is null where no backward follows.
  virtual void forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
                       DeltaSaved* saved) const = 0;

  // Where the delta does more than add to y: whether backward needs the gradient of y itself, and
  // that gradient, made of dy in place.
  [[nodiscard]] virtual bool changes_output_gradient() const { return false; }
  virtual void to_output_gradient(at::Tensor& dy, const DeltaSaved& saved) const {
    static_cast<void>(dy);
    static_cast<void>(saved);
  }

  // `dy`: of forward's result. Adds the gradients of the delta's parameters, and to `dx`, where
  // that is defined, what reaches x through the delta itself.
  virtual void backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                        const DeltaSaved& saved, at::Tensor& dx) const = 0;

  // What it makes of the layer's weight, as a difference to it: fp32 in the weight's shape.
  [[nodiscard]] virtual at::Tensor weight_change(const at::Tensor& weight) const = 0;

  // Elements that forward keeps for each row of a linear layer's x or each output position of a
  // convolution: for the memory forecast.
  [[nodiscard]] virtual std::int64_t kept_width() const = 0;
};

}  // namespace lorascale::nn
