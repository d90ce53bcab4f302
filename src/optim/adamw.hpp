// AdamW (Loshchilov & Hutter 2019), decay decoupled, as torch.optim.AdamW.
#pragma once

#include <memory>
#include <vector>

#include "optim/optimizer.hpp"

namespace lorascale::optim {

std::unique_ptr<Optimizer> make_adamw(std::vector<Segment> segments, const at::Tensor& parameters);

}  // namespace lorascale::optim
