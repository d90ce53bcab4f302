// Which device this rank computes on. The CUDA half of libtorch is loaded only where a GPU may be
// used: it takes a second.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <string>

#include "comm/communicator.hpp"
#include "comm/mpi_session.hpp"

namespace lorascale::cli {

// `wanted`: auto, cpu or cuda. A rank takes the GPU of its number on the node; where the launcher
// shows each rank GPUs of its own, it takes the first. Error(kBadConfig) where cuda is wanted and
// cannot be used.
at::Device choose_device(const std::string& wanted, const comm::NodePlace& place);

// Collective. Error(kBadConfig) on all ranks where two of them share a GPU, unless
// LORASCALE_SHARE_GPUS is set (a test switch; it also gives every rank an NCCL_HOSTID of its own,
// without which NCCL refuses).
void require_distinct_gpus(comm::Communicator& host, at::Device device);

// NCCL between the ranks; nothing for a single one. Error(kBadConfig) where this program was built
// without NCCL.
std::unique_ptr<comm::Communicator> gpu_communicator(comm::Communicator& host, at::Device device,
                                                     double deadline_seconds);

}  // namespace lorascale::cli
