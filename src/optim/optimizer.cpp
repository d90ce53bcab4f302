#include "optim/optimizer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/where.h>

namespace lorascale::optim {

GradientFacts gradient_facts(const at::Tensor& gradient_sum, const at::Tensor& count,
                             double clip_norm) {
  // The norm in fp64: sums of squares of millions of elements, the same to the last digits for any
  // split.
  const at::Tensor norm =
      at::linalg_vector_norm(gradient_sum, 2, std::nullopt, false, at::kDouble) / count;
  at::Tensor divisor = count;
  if (clip_norm > 0) {
    divisor = count * ((norm + 1e-6) / clip_norm).clamp_min(1.0);
  }
  const at::Tensor finite = norm.isfinite();
  return {at::where(finite, divisor, 1.0).to(at::kFloat), finite.logical_not().to(at::kFloat),
          norm.to(at::kFloat)};
}

}  // namespace lorascale::optim
