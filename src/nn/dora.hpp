// DoRA (Liu et al. 2024): the rows of W + s B A keep their direction and get lengths m of their
// own, y' = (m / |W + s B A|) (W x + s B A x) + b. As in peft the length is no path of gradients.
// Dropout, where there is any, is of the low-rank product's input alone.
#pragma once

#include <memory>

#include "nn/lora_linear.hpp"

namespace lorascale::nn {

// Lengths of the rows of `weight` [out, ...] + scale b a, fp32 [out]. `weight_squares`: the squares
// of those of the weight alone, so that with b = 0 the result is their root to the bit.
at::Tensor row_lengths(const at::Tensor& weight, const at::Tensor& weight_squares,
                       const LoraFactors& factors);
// fp32 [out]
at::Tensor row_squares(const at::Tensor& weight);
// What it makes of a weight, as a difference to it: fp32 in its shape.
at::Tensor dora_change(const at::Tensor& weight, const LoraFactors& factors,
                       const at::Tensor& magnitude);

class Dora : public Delta {
 public:
  // The layer's weight stays as it is; `bias` may be undefined. magnitude and its gradient: fp32
  // [out]. `lora` adds the product of `factors`.
  Dora(std::unique_ptr<Delta> lora, LoraFactors factors, at::Tensor weight, at::Tensor bias,
       at::Tensor magnitude, at::Tensor magnitude_grad);

  void forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
               DeltaSaved* saved) const override;
  [[nodiscard]] bool changes_output_gradient() const override { return true; }
  void to_output_gradient(at::Tensor& dy, const DeltaSaved& saved) const override;
  void backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                const DeltaSaved& saved, at::Tensor& dx) const override;
  [[nodiscard]] at::Tensor weight_change(const at::Tensor& weight) const override;
  [[nodiscard]] std::int64_t kept_width() const override {
    return lora_->kept_width() + weight_.size(0);
  }

 private:
  std::unique_ptr<Delta> lora_;
  LoraFactors factors_;
  at::Tensor weight_, bias_, weight_squares_;
  at::Tensor magnitude_, magnitude_grad_;
};

}  // namespace lorascale::nn
