// What libtorch and CUDA's libraries are told before they compute anything: how exactly to add up,
// which kernels may be chosen, and how much of a device to leave to others.
#pragma once

namespace lorascale::train {

// Whether several ranks share a GPU, as tests have them: then none counts on all of it.
bool shares_gpus();

// To be called before the CUDA half of libtorch is loaded (device_choice.hpp), which reads the
// environment once. Always: sums of 16-bit products are kept in fp32, and libtorch's allocator
// leaves a share of the device (tensor_memory.hpp) to NCCL, cuBLAS and the driver, unless
// PYTORCH_ALLOC_CONF says otherwise. `exact` (run.reduction): only kernels that repeat bit for bit,
// for attention, too.
void set_up_libraries(bool exact);

}  // namespace lorascale::train
