// How the gradients of leaves become the gradient of the update.
//   fast   leaves are added up in place as they come, ranks by the library's all-reduce: the result
//          depends on the number of ranks in its last bits
//   exact  along one binary tree over all leaves (comm/leaf_tree.hpp): the same bits on any number
//          of ranks, for log2(leaves) more vectors in memory and more traffic
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "config/run_config.hpp"
#include "train/world.hpp"

namespace lorascale::train {

class GradientSum {
 public:
  virtual ~GradientSum() = default;
  // An update of `leaves` leaves begins; the gradient vector is zero afterwards.
  virtual void begin(std::int64_t leaves) = 0;
  // Leaf `index` has just been added to the gradient vector.
  virtual void take(std::int64_t index) = 0;
  // What is kept of leaves [begin, end) once they are taken, besides the vector itself, in floats.
  [[nodiscard]] virtual std::int64_t kept_elements(std::int64_t begin, std::int64_t end) const = 0;
  // What reduce() holds for a moment after begin(), in floats.
  [[nodiscard]] virtual std::int64_t temporary_elements() const = 0;
  // Collective: the vector then holds the sum over all leaves of all ranks. `facts` are summed over
  // ranks on the way; their sum must not depend on an order.
  virtual void reduce(at::Tensor& facts) = 0;
};

// `gradient` is the flat fp32 vector that leaves are added to.
// `leaf_by_leaf`: before take() the vector holds that leaf alone, which exact sums imply.
std::unique_ptr<GradientSum> make_gradient_sum(config::Reduction reduction, bool leaf_by_leaf,
                                               World& world, const at::Tensor& gradient);

}  // namespace lorascale::train
