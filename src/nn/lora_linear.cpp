#include "nn/lora_linear.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>

#include "nn/dispatch.hpp"
#include "nn/dropout.hpp"
#include "nn/product.hpp"

namespace lorascale::nn {

void LoraFactors::drop_ranks(const SampleRows* rows, at::Tensor& low_rank) const {
  if (rows == nullptr || (rank_dropout == 0 && module_dropout == 0)) {
    return;
  }
  at::Tensor kept = rank_dropout_scale(*rows, draw, rank_dropout, module_dropout, low_rank.size(1),
                                       low_rank.options());
  if (low_rank.dim() == 4) {
    kept = kept.view({low_rank.size(0), low_rank.size(1), 1, 1});
  }
  low_rank.mul_(kept);
}

at::Tensor LoraLinear::mask(const SampleRows& rows, const at::Tensor& x) const {
  return dropout_scale(rows, factors_.draw, factors_.dropout, x.size(1), x.options());
}

void LoraLinear::forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
                         DeltaSaved* saved) const {
  const bool drops = rows != nullptr && factors_.dropout > 0;
  at::Tensor low_rank = product(drops ? x * mask(*rows, x) : x, factors_.a.t());  // [tokens, rank]
  factors_.drop_ranks(rows, low_rank);
  add_product(y, low_rank, factors_.b.t(), factors_.scale);
  if (saved != nullptr) {
    saved->push_back(std::move(low_rank));
  }
}

void LoraLinear::backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                          const DeltaSaved& saved, at::Tensor& dx) const {
  const at::Tensor& a = factors_.a;
  const at::Tensor& grad_a = factors_.grad_a;
  const double scale = factors_.scale;
  at::Tensor low_rank_grad = product(dy, factors_.b);  // [tokens, rank]
  factors_.drop_ranks(rows, low_rank_grad);
  accumulate_product(factors_.grad_b, dy.t(), saved[0], scale);
  if (rows != nullptr && factors_.dropout > 0) {
    const at::Tensor scales = mask(*rows, x);
    accumulate_product(grad_a, low_rank_grad.t(), x * scales, scale);
    if (dx.defined()) {
      dx.addcmul_(scales, product(low_rank_grad, a), scale);
    }
    return;
  }
  accumulate_product(grad_a, low_rank_grad.t(), x, scale);
  if (dx.defined()) {
    add_product(dx, low_rank_grad, a, scale);
  }
}

at::Tensor LoraLinear::weight_change(const at::Tensor& /*weight*/) const {
  return at::mm(factors_.b.to(at::kFloat), factors_.a.to(at::kFloat)).mul_(factors_.scale);
}

}  // namespace lorascale::nn
