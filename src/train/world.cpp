#include "train/world.hpp"

#include <ATen/ops/empty.h>

#include <span>

#include "base/error.hpp"

namespace lorascale::train {

namespace {

void reduce_in_place(comm::Communicator& communicator, const at::Tensor& tensor) {
  const auto count = static_cast<std::size_t>(tensor.numel());
  if (tensor.scalar_type() == at::kDouble) {
    communicator.all_reduce(std::span(tensor.data_ptr<double>(), count));
  } else {
    communicator.all_reduce(std::span(tensor.data_ptr<float>(), count));
  }
}

}  // namespace

void all_reduce_sum(World& world, const at::Tensor& tensor) {
  LS_ASSERT(tensor.is_contiguous() && tensor.device() == world.place);
  const bool on_device = !tensor.is_cpu();
  if (on_device && world.device.memory_space() == comm::MemorySpace::kHost) {
    if (world.host.size() > 1) {
      const at::Tensor staged = tensor.cpu();
      reduce_in_place(world.host, staged);
      at::Tensor(tensor).copy_(staged);
    }
    return;
  }
  reduce_in_place(world.device, tensor);
}

void all_gather(World& world, const at::Tensor& mine, const at::Tensor& all) {
  LS_ASSERT(mine.is_contiguous() && all.is_contiguous());
  const auto gather = [](comm::Communicator& communicator, const at::Tensor& from,
                         const at::Tensor& to) {
    communicator.all_gather(
        std::span<const float>(from.const_data_ptr<float>(),
                               static_cast<std::size_t>(from.numel())),
        std::span<float>(to.data_ptr<float>(), static_cast<std::size_t>(to.numel())));
  };
  if (!mine.is_cpu() && world.device.memory_space() == comm::MemorySpace::kHost) {
    const at::Tensor staged = at::empty(all.sizes(), all.options().device(at::kCPU));
    gather(world.host, mine.cpu(), staged);
    at::Tensor(all).copy_(staged);
    return;
  }
  gather(world.device, mine, all);
}

}  // namespace lorascale::train
