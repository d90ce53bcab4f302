// SGD with momentum, as torch.optim.SGD; and LARS (You et al. 2017), which is SGD with trust
// ratios, the rate outside of the momentum.
#pragma once

#include <memory>
#include <vector>

#include "optim/optimizer.hpp"

namespace lorascale::optim {

// Without trust ratios, whatever the segments say of them.
std::unique_ptr<Optimizer> make_sgd(std::vector<Segment> segments, const at::Tensor& parameters);
std::unique_ptr<Optimizer> make_lars(std::vector<Segment> segments, const at::Tensor& parameters);

}  // namespace lorascale::optim
