#include "comm/local_communicator.hpp"

#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "base/heartbeat.hpp"

namespace lorascale::comm {

std::size_t size_of(ElementType type) {
  switch (type) {
    case ElementType::kInt8:
    case ElementType::kUint8:
      return 1;
    case ElementType::kInt32:
    case ElementType::kFloat32:
      return 4;
    case ElementType::kInt64:
    case ElementType::kUint64:
    case ElementType::kFloat64:
      return 8;
  }
  LS_ASSERT(false);
  return 0;
}

void LocalCommunicator::abort(ExitCode code) {
  _exit(static_cast<int>(code));
}

void LocalCommunicator::wait() {
  if (!device_) {
    return;
  }
  beat("waiting for the device");
  device_->mark();
  const auto start = std::chrono::steady_clock::now();
  while (!device_->passed_mark()) {
    if (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(50)) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }
}

void LocalCommunicator::do_all_gather(const void* mine, void* all, std::size_t count,
                                      ElementType type) {
  // On a device the two spans are the same memory or nothing: a single rank gathers in place.
  if (mine != all && memory_space() == MemorySpace::kHost) {
    std::memcpy(all, mine, count * size_of(type));
  }
}

std::vector<std::vector<std::byte>> LocalCommunicator::do_gather_to_root(
    std::span<const std::byte> mine) {
  if (!device_) {
    return {{mine.begin(), mine.end()}};
  }
  wait();
  std::vector<std::byte> part(mine.size());
  device_->copy_to_host(part.data(), mine.data(), mine.size());
  return {std::move(part)};
}

}  // namespace lorascale::comm
