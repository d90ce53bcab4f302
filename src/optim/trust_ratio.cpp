#include "optim/trust_ratio.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <numeric>

#include "base/error.hpp"

namespace lorascale::optim {

TrustRatio::TrustRatio(const Segment& segment, at::Device device) : coefficient_(segment.trust) {
  if (!applies()) {
    return;
  }
  sizes_ = segment.tensors;
  LS_ASSERT(std::accumulate(sizes_.begin(), sizes_.end(), std::int64_t{0}) ==
            segment.end - segment.begin);
  table_ = at::tensor(at::IntArrayRef(sizes_), at::TensorOptions().dtype(at::kLong)).to(device);
}

at::Tensor TrustRatio::norms(const at::Tensor& part) const {
  return at::stack(at::_foreach_norm(part.split_with_sizes(sizes_), 2, at::kDouble));
}

at::Tensor TrustRatio::factors(const at::Tensor& update, const at::Tensor& weights,
                               double decay) const {
  const at::Tensor weight_norms = norms(weights);
  const at::Tensor update_norms = norms(update);
  const at::Tensor ratio = weight_norms * coefficient_ / (update_norms + weight_norms * decay);
  const at::Tensor known = (weight_norms > 0).logical_and(update_norms > 0);
  // Told the number of elements, it need not ask the device for it.
  return at::repeat_interleave(at::where(known, ratio, 1.0).to(at::kFloat), table_, 0,
                               update.numel());
}

}  // namespace lorascale::optim
