// LAMB (You et al., 1904.00962): Adam's direction with the decay inside, then for each tensor the
// trust ratio |w| / |direction|, so that an update moves a tensor by the rate times its own length.
#pragma once

#include <memory>
#include <vector>

#include "optim/optimizer.hpp"

namespace lorascale::optim {

std::unique_ptr<Optimizer> make_lamb(std::vector<Segment> segments, const at::Tensor& parameters);

}  // namespace lorascale::optim
