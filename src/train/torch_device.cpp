#include "train/torch_device.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace lorascale::train {
namespace {

class TorchDeviceRuntime : public comm::DeviceRuntime {
 public:
  explicit TorchDeviceRuntime(c10::Device device)
      : device_(device), guard_(device.type()), event_(device.type()) {}
  void* stream() override { return guard_.getStream(device_).native_handle(); }
  void mark() override { event_.record(guard_.getStream(device_)); }
  bool passed_mark() override { return event_.query(); }
  void copy_to_host(void* to, const void* from, std::size_t bytes) override {
    const auto size = static_cast<std::int64_t>(bytes);
    const auto source =
        at::from_blob(const_cast<void*>(from), {size}, at::device(device_).dtype(at::kByte));
    at::from_blob(to, {size}, at::kByte).copy_(source);
  }

 private:
  c10::Device device_;
  c10::impl::VirtualGuardImpl guard_;
  c10::Event event_;
};

}  // namespace

std::unique_ptr<comm::DeviceRuntime> torch_device_runtime(c10::Device device) {
  return std::make_unique<TorchDeviceRuntime>(device);
}

}  // namespace lorascale::train
