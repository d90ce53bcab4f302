// What a communicator on device memory needs of the device, injectable so that its logic is tested
// without one. All of it concerns the current stream of this rank's device.
#pragma once

#include <cstddef>
#include <memory>

namespace lorascale::comm {

class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  // The native handle of the stream that collectives are enqueued on.
  virtual void* stream() = 0;
  // A mark behind all work enqueued so far, and whether the device has passed it. A device error
  // throws.
  virtual void mark() = 0;
  virtual bool passed_mark() = 0;
  // Blocking.
  virtual void copy_to_host(void* to, const void* from, std::size_t bytes) = 0;
};

}  // namespace lorascale::comm
