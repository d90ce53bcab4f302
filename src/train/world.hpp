// One rank's place in the job: who the others are and where tensors live. Owned by main.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "comm/communicator.hpp"
#include "comm/mpi_session.hpp"

namespace lorascale::train {

struct World {
  comm::Communicator& host;  // votes, facts and small agreements, in host memory
  // Gradients. Where it works on host memory and the tensors live on a device, they are staged.
  comm::Communicator& device;
  at::Device place = at::Device(at::kCPU);
  std::string host_name;
  comm::NodePlace node{};

  [[nodiscard]] bool is_root() const { return host.rank() == 0; }
};

// Adds up over ranks, in place; `tensor` is contiguous fp32 or fp64 on world.place.
void all_reduce_sum(World& world, const at::Tensor& tensor);

// `all` [ranks, ...] receives every rank's `mine`; both contiguous fp32 on world.place.
void all_gather(World& world, const at::Tensor& mine, const at::Tensor& all);

}  // namespace lorascale::train
