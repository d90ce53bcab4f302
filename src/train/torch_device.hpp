// libtorch's current CUDA stream, as the communicator on device memory needs it. Works through
// libtorch's device-generic interface: nothing of CUDA is linked.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "comm/device_runtime.hpp"

namespace lorascale::train {

std::unique_ptr<comm::DeviceRuntime> torch_device_runtime(c10::Device device);

}  // namespace lorascale::train
