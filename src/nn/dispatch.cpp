#include "nn/dispatch.hpp"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

namespace lorascale::nn {

void accumulate_product(const at::Tensor& target, const at::Tensor& a, const at::Tensor& b,
                        double scale) {
  if (a.scalar_type() == target.scalar_type()) {
    at::Tensor out = target;
    at::addmm_out(out, out, a, b, /*beta=*/1, /*alpha=*/scale);
  } else {
    target.add_(at::mm(a, b), scale);
  }
}

}  // namespace lorascale::nn
