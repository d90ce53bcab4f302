// IA3 (Liu et al. 2022): a number l for each output of a layer scales it, y' = l y, or one for each
// input, y' = W (l x) + b. The numbers are kept as l - 1, which is what bf16 holds well near l = 1.
#pragma once

#include "nn/delta.hpp"

namespace lorascale::nn {

// What scales a layer: `change`, l - 1, is fp32 [out], or [in] of a linear layer where it is of its
// inputs.
struct LayerScaling {
  at::Tensor change;
  bool of_inputs = false;
  // Whether l scales the bias of the layer with its outputs, as peft does, or the weight's rows
  // alone, as LyCORIS does.
  bool of_bias = true;
};

// What it makes of a weight [out, in, ...], as a difference to it: fp32 in its shape.
at::Tensor scaling_change(const at::Tensor& weight, const LayerScaling& scaling);

class Ia3 : public Delta {
 public:
  // The layer's weight stays as it is; `bias` may be undefined. `gradient` as scaling.change, of
  // which the parameter is a view.
  Ia3(LayerScaling scaling, at::Tensor gradient, at::Tensor weight, at::Tensor bias);

  void forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
               DeltaSaved* saved) const override;
  [[nodiscard]] bool changes_output_gradient() const override { return !scaling_.of_inputs; }
  void to_output_gradient(at::Tensor& dy, const DeltaSaved& saved) const override;
  void backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                const DeltaSaved& saved, at::Tensor& dx) const override;
  [[nodiscard]] at::Tensor weight_change(const at::Tensor& weight) const override {
    return scaling_change(weight, scaling_);
  }
  [[nodiscard]] std::int64_t kept_width() const override {
    return scaling_.of_inputs ? 0 : weight_.size(0);
  }

 private:
  LayerScaling scaling_;
  at::Tensor gradient_, weight_, bias_;  // bias: what is not to be scaled, or undefined
};

}  // namespace lorascale::nn
