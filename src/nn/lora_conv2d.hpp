// LoRA on a convolution: y' = y + s (drop(x) * A) * B, where A is a convolution like the layer's
// own to r channels, and B one of 1 x 1 (as peft's, and LoCon of Yeh et al. 2023).
#pragma once

#include "nn/lora_linear.hpp"
#include "nn/site.hpp"

namespace lorascale::nn {

class LoraConv2d : public Delta {
 public:
  // The geometry is the layer's, of one group.
  LoraConv2d(LoraFactors factors, const Conv2dGeometry& geometry);

  void forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
               DeltaSaved* saved) const override;
  void backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                const DeltaSaved& saved, at::Tensor& dx) const override;
  [[nodiscard]] at::Tensor weight_change(const at::Tensor& weight) const override;
  [[nodiscard]] std::int64_t kept_width() const override { return factors_.a.size(0); }

 private:
  [[nodiscard]] bool drops(const SampleRows* rows) const;
  [[nodiscard]] at::Tensor mask(const SampleRows& rows, const at::Tensor& x) const;

  LoraFactors factors_;
  Conv2dGeometry geometry_;
};

}  // namespace lorascale::nn
