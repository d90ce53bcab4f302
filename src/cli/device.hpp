// GPUs of several ranks: one for each, and NCCL between them.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "comm/communicator.hpp"

namespace lorascale::cli {

// Collective. Error(kBadConfig) on all ranks where two of them share a GPU, unless
// LORASCALE_SHARE_GPUS is set (a test switch; it also gives every rank an NCCL_HOSTID of its own,
// without which NCCL refuses).
void require_distinct_gpus(comm::Communicator& host, at::Device device);

// NCCL between the ranks; nothing for a single one. Error(kBadConfig) where this program was built
// without NCCL.
std::unique_ptr<comm::Communicator> gpu_communicator(comm::Communicator& host, at::Device device,
                                                     double deadline_seconds);

}  // namespace lorascale::cli
