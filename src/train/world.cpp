#include "train/world.hpp"

#include "base/error.hpp"

namespace lorascale::train {

void all_reduce_sum(World& world, const at::Tensor& tensor) {
  LS_ASSERT(tensor.is_contiguous() && tensor.device() == world.place);
  const auto count = static_cast<std::size_t>(tensor.numel());
  if (tensor.scalar_type() == at::kDouble) {
    world.device.all_reduce(std::span(tensor.data_ptr<double>(), count));
  } else {
    world.device.all_reduce(std::span(tensor.data_ptr<float>(), count));
  }
}

}  // namespace lorascale::train
