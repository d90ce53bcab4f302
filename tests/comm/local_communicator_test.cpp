// One rank alone, in host memory and on a device, which is replaced.
#include "comm/local_communicator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace lorascale::comm {
namespace {

using testing::InSequence;
using testing::Return;
using testing::StrictMock;

class MockDevice : public DeviceRuntime {
 public:
  MOCK_METHOD(void*, stream, (), (override));
  MOCK_METHOD(void, mark, (), (override));
  MOCK_METHOD(bool, passed_mark, (), (override));
  MOCK_METHOD(void, copy_to_host, (void*, const void*, std::size_t), (override));
};

TEST(LocalCommunicatorTest, WaitsForTheDevice) {
  auto device = std::make_unique<StrictMock<MockDevice>>();
  {
    const InSequence in_order;
    EXPECT_CALL(*device, mark);
    EXPECT_CALL(*device, passed_mark).Times(300).WillRepeatedly(Return(false));
    EXPECT_CALL(*device, passed_mark).WillOnce(Return(true));
  }
  LocalCommunicator alone(std::move(device));
  EXPECT_EQ(alone.memory_space(), MemorySpace::kDevice);
  std::array<float, 2> data = {1, 2};
  alone.all_reduce(std::span(data));  // nothing to do, and nothing to wait for
  alone.wait();
}

TEST(LocalCommunicatorTest, AFailureOfTheDeviceIsSeenWhereItIsWaitedFor) {
  auto device = std::make_unique<StrictMock<MockDevice>>();
  EXPECT_CALL(*device, mark);
  EXPECT_CALL(*device, passed_mark).WillOnce(testing::Throw(std::runtime_error("device error")));
  LocalCommunicator alone(std::move(device));
  EXPECT_THROW(alone.wait(), std::runtime_error);
}

TEST(LocalCommunicatorTest, BytesOfADeviceComeToTheHostWhenTheyAreThere) {
  auto device = std::make_unique<StrictMock<MockDevice>>();
  {
    const InSequence in_order;
    EXPECT_CALL(*device, mark);
    EXPECT_CALL(*device, passed_mark).WillOnce(Return(true));
    EXPECT_CALL(*device, copy_to_host).WillOnce([](void* to, const void* from, std::size_t bytes) {
      std::memcpy(to, from, bytes);
    });
  }
  LocalCommunicator alone(std::move(device));
  const std::array<std::int32_t, 2> mine = {3, 4};
  const auto parts = alone.gather_to_root(std::span<const std::int32_t>(mine));
  ASSERT_EQ(parts.size(), 1U);
  EXPECT_EQ(parts[0], (std::vector<std::int32_t>{3, 4}));
}

TEST(LocalCommunicatorTest, HostMemoryNeedsNoWait) {
  LocalCommunicator alone;
  EXPECT_EQ(alone.memory_space(), MemorySpace::kHost);
  alone.wait();
  const std::array<double, 1> mine = {2.5};
  std::array<double, 1> all = {0};
  alone.all_gather(std::span<const double>(mine), std::span<double>(all));
  EXPECT_EQ(all[0], 2.5);
}

}  // namespace
}  // namespace lorascale::comm
