// LoRA on a linear layer (Hu et al. 2021): y' = y + s (drop(x) A') B'.
#pragma once

#include "nn/delta.hpp"

namespace lorascale::nn {

// The factors of one layer. a and b are in the model's type: views of the master vector, or rounded
// copies.
struct LoraFactors {
  at::Tensor a;                 // [rank, in], of a convolution [rank, in, height, width]
  at::Tensor b;                 // [out, rank], of a convolution [out, rank, 1, 1]
  at::Tensor grad_a;            // fp32 like a
  at::Tensor grad_b;            // fp32 like b
  double scale = 1.0;           // alpha / rank, or alpha / sqrt(rank)
  double dropout = 0.0;         // of numbers of x
  double rank_dropout = 0.0;    // of the rank, and
  double module_dropout = 0.0;  // of the whole product, for each sample
  std::uint32_t draw = 0;       // distinguishes the dropouts of one layer from another's

  // Leaves out of what comes out of A, [rows, rank, ...], or of its gradient, what rank_dropout and
  // module_dropout say, in place. `rows` is null outside training.
  void drop_ranks(const SampleRows* rows, at::Tensor& low_rank) const;
};

class LoraLinear : public Delta {
 public:
  explicit LoraLinear(LoraFactors factors) : factors_(std::move(factors)) {}

  void forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
               DeltaSaved* saved) const override;
  void backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                const DeltaSaved& saved, at::Tensor& dx) const override;
  [[nodiscard]] at::Tensor weight_change(const at::Tensor& weight) const override;
  [[nodiscard]] std::int64_t kept_width() const override { return factors_.a.size(0); }

 private:
  [[nodiscard]] at::Tensor mask(const SampleRows& rows, const at::Tensor& x) const;

  LoraFactors factors_;
};

}  // namespace lorascale::nn
