// Trust ratios of LAMB and LARS: every tensor of a segment gets a factor of its own on its update,
// from the length of its weights and of its update. All tensors of a segment at once, on the
// device: one table of sizes, norms in fp64, nobody waits.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "optim/optimizer.hpp"

namespace lorascale::optim {

class TrustRatio {
 public:
  TrustRatio(const Segment& segment, at::Device device);

  // Whether the segment takes part; what is below is for those that do.
  [[nodiscard]] bool applies() const { return coefficient_ > 0; }
  // For each element the ratio of its tensor: c |w| / (|update| + decay |w|), and 1 where |w| or
  // |update| is 0. `update` and `weights` are the segment's parts of flat fp32 vectors, as is the
  // result.
  [[nodiscard]] at::Tensor factors(const at::Tensor& update, const at::Tensor& weights,
                                   double decay) const;

 private:
  // fp64 [tensors]
  [[nodiscard]] at::Tensor norms(const at::Tensor& part) const;

  double coefficient_;               // c
  std::vector<std::int64_t> sizes_;  // elements of each tensor
  at::Tensor table_;                 // sizes_, on the device
};

}  // namespace lorascale::optim
