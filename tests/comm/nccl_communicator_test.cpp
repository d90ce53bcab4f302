// Set-up, use, failure and teardown of NCCL, with NCCL and the device replaced: no GPU needed.
#include "comm/nccl_communicator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <thread>
#include <tuple>

#include "base/abrupt_end.hpp"

namespace lorascale::comm {
namespace {

using testing::_;
using testing::DoAll;
using testing::HasSubstr;
using testing::InSequence;
using testing::NiceMock;
using testing::Return;
using testing::SetArgPointee;

class MockNccl : public NcclApi {
 public:
  MockNccl() { ++alive; }
  ~MockNccl() override { --alive; }
  static inline std::atomic<int> alive = 0;
  MOCK_METHOD(ncclResult_t, get_version, (int*), (override));
  MOCK_METHOD(ncclResult_t, get_unique_id, (ncclUniqueId*), (override));
  MOCK_METHOD(ncclResult_t, init_rank, (ncclComm_t*, int, const ncclUniqueId&, int, ncclConfig_t*),
              (override));
  MOCK_METHOD(ncclResult_t, async_error, (ncclComm_t, ncclResult_t*), (override));
  MOCK_METHOD(ncclResult_t, finalize, (ncclComm_t), (override));
  MOCK_METHOD(ncclResult_t, destroy, (ncclComm_t), (override));
  MOCK_METHOD(ncclResult_t, abort, (ncclComm_t), (override));
  MOCK_METHOD(ncclResult_t, all_reduce,
              (void*, std::size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, void*), (override));
  MOCK_METHOD(ncclResult_t, broadcast, (void*, std::size_t, ncclDataType_t, int, ncclComm_t, void*),
              (override));
  MOCK_METHOD(ncclResult_t, all_gather,
              (const void*, void*, std::size_t, ncclDataType_t, ncclComm_t, void*), (override));
  MOCK_METHOD(ncclResult_t, group_start, (), (override));
  MOCK_METHOD(ncclResult_t, group_end, (), (override));
  std::string detail;  // as ncclGetLastError has it
  std::string describe(ncclResult_t result, ncclComm_t) override {
    return "nccl result " + std::to_string(result) + detail;
  }
};

class MockDevice : public DeviceRuntime {
 public:
  MOCK_METHOD(void*, stream, (), (override));
  MOCK_METHOD(void, mark, (), (override));
  MOCK_METHOD(bool, passed_mark, (), (override));
  void copy_to_host(void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
};

// Rank `rank` of two, whose peer is only pretended.
class FakeHost : public Communicator {
 public:
  explicit FakeHost(int rank) : Communicator(rank, 2, 1.0) {}
  [[nodiscard]] MemorySpace memory_space() const override { return MemorySpace::kHost; }
  void barrier() override { ++barriers; }
  [[noreturn]] void abort(ExitCode) override { throw std::logic_error("aborted"); }
  void attend() override { ++attended; }
  std::string missing_ranks() override { return "rank 1 (node7) does not answer"; }

  int barriers = 0, attended = 0;
  std::vector<std::uint8_t> from_root;  // what a broadcast delivers to rank 1

 protected:
  void do_all_reduce(void*, std::size_t, ElementType, ReduceOp) override {}
  void do_broadcast(void* data, std::size_t count, ElementType, int) override {
    if (rank() != 0) {
      from_root.resize(count);
      std::memcpy(data, from_root.data(), count);
    }
  }
  void do_all_gather(const void*, void*, std::size_t, ElementType) override {}
  std::vector<std::vector<std::byte>> do_gather_to_root(std::span<const std::byte> mine) override {
    return {{mine.begin(), mine.end()}};
  }
};

const auto kComm = reinterpret_cast<ncclComm_t>(0x1234);
void* const kStream = reinterpret_cast<void*>(0x77);

class NcclCommunicatorTest : public testing::Test {
 protected:
  // Everything succeeds unless a test says otherwise.
  NcclCommunicatorTest() {
    ON_CALL(*nccl_, init_rank).WillByDefault(DoAll(SetArgPointee<0>(kComm), Return(ncclSuccess)));
    ON_CALL(*nccl_, async_error)
        .WillByDefault(DoAll(SetArgPointee<1>(ncclSuccess), Return(ncclSuccess)));
    ON_CALL(*device_, stream).WillByDefault(Return(kStream));
    ON_CALL(*device_, passed_mark).WillByDefault(Return(true));
  }
  NcclCommunicator make(double deadline = 20, double patience = 5) {
    return NcclCommunicator(host_, std::move(owned_nccl_), std::move(owned_device_), deadline,
                            patience);
  }
  template <typename Action>
  void expect_error(ExitCode code, const std::vector<std::string>& words, Action action) {
    try {
      action();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      for (const auto& word : words) {
        EXPECT_THAT(error.what(), HasSubstr(word));
      }
    }
  }

  FakeHost host_{0};
  std::unique_ptr<NiceMock<MockNccl>> owned_nccl_ = std::make_unique<NiceMock<MockNccl>>();
  std::unique_ptr<NiceMock<MockDevice>> owned_device_ = std::make_unique<NiceMock<MockDevice>>();
  NiceMock<MockNccl>* nccl_ = owned_nccl_.get();
  NiceMock<MockDevice>* device_ = owned_device_.get();
};

TEST_F(NcclCommunicatorTest, IsSetUpWithoutBlockingAndClosedInOrder) {
  {
    const InSequence in_order;
    EXPECT_CALL(*nccl_, get_unique_id);
    EXPECT_CALL(*nccl_, init_rank(_, 2, _, 0,
                                  testing::Pointee(testing::Field(&ncclConfig_t::blocking, 0))));
    EXPECT_CALL(*nccl_, finalize(kComm));
    EXPECT_CALL(*nccl_, destroy(kComm));
  }
  EXPECT_CALL(*nccl_, abort).Times(0);
  const auto comm = make();
  EXPECT_EQ(comm.memory_space(), MemorySpace::kDevice);
}

TEST_F(NcclCommunicatorTest, ASetUpInProgressIsPolledUntilItIsThrough) {
  EXPECT_CALL(*nccl_, init_rank).WillOnce(DoAll(SetArgPointee<0>(kComm), Return(ncclInProgress)));
  EXPECT_CALL(*nccl_, async_error)
      .WillOnce(DoAll(SetArgPointee<1>(ncclInProgress), Return(ncclSuccess)))
      .WillOnce(DoAll(SetArgPointee<1>(ncclInProgress), Return(ncclSuccess)))
      .WillRepeatedly(DoAll(SetArgPointee<1>(ncclSuccess), Return(ncclSuccess)));
  make();
}

TEST_F(NcclCommunicatorTest, ASetUpThatNeverEndsIsAbortedAndNamesTheMissing) {
  EXPECT_CALL(*nccl_, init_rank).WillOnce(DoAll(SetArgPointee<0>(kComm), Return(ncclInProgress)));
  ON_CALL(*nccl_, async_error)
      .WillByDefault(DoAll(SetArgPointee<1>(ncclInProgress), Return(ncclSuccess)));
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  EXPECT_CALL(*nccl_, destroy).Times(0);
  expect_error(ExitCode::kPeerLost, {"ncclCommInitRankConfig", "rank 0", "node7"},
               [&] { make(0.1); });
  EXPECT_GT(host_.attended, 0) << "a rank that waits must answer the others";
}

TEST_F(NcclCommunicatorTest, TwoRanksOnOneGpuAreExplained) {
  EXPECT_CALL(*nccl_, init_rank).WillOnce(Return(ncclInvalidUsage));
  expect_error(ExitCode::kInternal, {"share one GPU"}, [&] { make(); });
}

TEST_F(NcclCommunicatorTest, AFailedUniqueIdFailsEveryRank) {
  EXPECT_CALL(*nccl_, get_unique_id).WillOnce(Return(ncclSystemError));
  EXPECT_CALL(*nccl_, init_rank).Times(0);
  expect_error(ExitCode::kInternal, {"ncclGetUniqueId", "on rank 0"}, [&] { make(); });

  FakeHost other(1);
  const std::int64_t result = ncclSystemError;
  other.from_root.resize(sizeof(result));
  std::memcpy(other.from_root.data(), &result, sizeof(result));
  auto nccl = std::make_unique<NiceMock<MockNccl>>();
  EXPECT_CALL(*nccl, init_rank).Times(0);
  expect_error(ExitCode::kInternal, {"ncclGetUniqueId", "rank 1"}, [&] {
    NcclCommunicator(other, std::move(nccl), std::make_unique<NiceMock<MockDevice>>(), 20);
  });
}

TEST_F(NcclCommunicatorTest, CountsAreElementsAndTheStreamIsTheDevices) {
  std::array<float, 5> floats{};
  std::array<double, 3> doubles{};
  std::array<std::int64_t, 2> integers{};
  EXPECT_CALL(*nccl_, all_reduce(floats.data(), 5, ncclFloat32, ncclSum, kComm, kStream));
  EXPECT_CALL(*nccl_, all_reduce(doubles.data(), 3, ncclFloat64, ncclMax, kComm, kStream));
  EXPECT_CALL(*nccl_, broadcast(integers.data(), 2, ncclInt64, 1, kComm, kStream));
  auto comm = make();
  comm.all_reduce(std::span(floats));
  comm.all_reduce(std::span(doubles), ReduceOp::kMax);
  comm.broadcast(std::span(integers), 1);
}

TEST_F(NcclCommunicatorTest, GathersGoWhereTheyShould) {
  std::array<std::int32_t, 2> mine{};
  std::array<std::int32_t, 4> all{};
  EXPECT_CALL(*nccl_, all_gather(mine.data(), all.data(), 2, ncclInt32, kComm, kStream));
  auto comm = make();
  comm.all_gather(std::span<const std::int32_t>(mine), std::span<std::int32_t>(all));
  mine = {3, 4};
  const auto parts = comm.gather_to_root(std::span<const std::int32_t>(mine));
  ASSERT_EQ(parts.size(), 1U);
  EXPECT_EQ(parts[0], (std::vector<std::int32_t>{3, 4}));
}

TEST_F(NcclCommunicatorTest, EmptySpansAreNotSent) {
  EXPECT_CALL(*nccl_, all_reduce).Times(0);
  auto comm = make();
  comm.all_reduce(std::span<float>());
}

TEST_F(NcclCommunicatorTest, AGroupIsThroughWithItsEnd) {
  std::array<float, 2> gradient{};
  std::array<double, 1> facts{};
  {
    const InSequence in_order;
    EXPECT_CALL(*nccl_, group_start);
    EXPECT_CALL(*nccl_, all_reduce(gradient.data(), _, _, _, _, _))
        .WillOnce(Return(ncclInProgress));
    EXPECT_CALL(*nccl_, all_reduce(facts.data(), _, _, _, _, _)).WillOnce(Return(ncclInProgress));
    EXPECT_CALL(*nccl_, group_end).WillOnce(Return(ncclInProgress));
    EXPECT_CALL(*nccl_, async_error)
        .WillOnce(DoAll(SetArgPointee<1>(ncclInProgress), Return(ncclSuccess)))
        .WillOnce(DoAll(SetArgPointee<1>(ncclSuccess), Return(ncclSuccess)));
  }
  auto comm = make();
  comm.group_begin();
  comm.all_reduce(std::span(gradient));
  comm.all_reduce(std::span(facts));
  comm.group_end();
}

TEST_F(NcclCommunicatorTest, WaitEndsWhenTheDeviceHasPassedTheMark) {
  EXPECT_CALL(*device_, mark);
  EXPECT_CALL(*device_, passed_mark)
      .WillOnce(Return(false))
      .WillOnce(Return(false))
      .WillOnce(Return(true));
  auto comm = make();
  comm.wait();
}

TEST_F(NcclCommunicatorTest, APeerThatStaysAwayEndsInAnAbort) {
  ON_CALL(*device_, passed_mark).WillByDefault(Return(false));
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  EXPECT_CALL(*nccl_, finalize).Times(0);
  EXPECT_CALL(*nccl_, destroy).Times(0);
  expect_error(ExitCode::kPeerLost, {"all_reduce on rank 0", "rank 1 (node7) does not answer"},
               [&] {
                 auto comm = make(0.1);
                 std::array<float, 2> data{};
                 comm.all_reduce(std::span(data));
                 comm.wait();
               });
}

TEST_F(NcclCommunicatorTest, AnAsynchronousErrorEndsInAnAbort) {
  auto comm = make();
  EXPECT_CALL(*nccl_, async_error)
      .WillOnce(DoAll(SetArgPointee<1>(ncclRemoteError), Return(ncclSuccess)));
  ON_CALL(*device_, passed_mark).WillByDefault(Return(false));
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  expect_error(ExitCode::kPeerLost, {"nccl result 6"}, [&] { comm.wait(); });
}

TEST_F(NcclCommunicatorTest, AFailedCallIsReportedWithItsName) {
  EXPECT_CALL(*nccl_, all_reduce).WillOnce(Return(ncclUnhandledCudaError));
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  expect_error(ExitCode::kInternal, {"ncclAllReduce on rank 0", "nccl result 1"}, [&] {
    auto comm = make();
    std::array<float, 2> data{};
    comm.all_reduce(std::span(data));
  });
}

TEST_F(NcclCommunicatorTest, ARankThatFailsElsewhereDoesNotWaitForTheOthers) {
  EXPECT_CALL(*nccl_, finalize).Times(0);
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  try {
    const auto comm = make();
    throw std::runtime_error("something else");
  } catch (const std::runtime_error&) {
  }
}

TEST_F(NcclCommunicatorTest, AFailedTeardownIsReportedAndGoesOn) {
  EXPECT_CALL(*nccl_, finalize).WillOnce(Return(ncclInternalError));
  testing::internal::CaptureStderr();
  make();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("ncclCommFinalize"));
}

double seconds_of(const std::function<void()>& action) {
  const auto start = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

TEST_F(NcclCommunicatorTest, APeerThatNeverFinalizesKeepsNoDestructorWaiting) {
  EXPECT_CALL(*nccl_, finalize).WillOnce(Return(ncclInProgress));
  EXPECT_CALL(*nccl_, destroy).Times(0);
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  testing::internal::CaptureStderr();
  auto comm = std::make_unique<NcclCommunicator>(
      host_, std::move(owned_nccl_), std::move(owned_device_), 20, /*patience_seconds=*/0.2);
  EXPECT_CALL(*nccl_, async_error)
      .WillRepeatedly(DoAll(SetArgPointee<1>(ncclInProgress), Return(ncclSuccess)));
  EXPECT_LT(seconds_of([&] { comm.reset(); }), 3);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("ncclCommFinalize"));
}

// NCCL's abort is known to hang where a peer died; its destroy, where the network did.
TEST_F(NcclCommunicatorTest, ACleanUpThatHangsIsLeftAlone) {
  std::promise<void> gate;
  const auto opened = gate.get_future().share();
  const auto hangs = [opened](ncclComm_t) {
    opened.wait();
    return ncclSuccess;
  };
  EXPECT_CALL(*nccl_, abort).WillOnce(hangs);
  ON_CALL(*device_, passed_mark).WillByDefault(Return(false));
  const double seconds = seconds_of([&] {
    expect_error(ExitCode::kPeerLost, {"all_reduce"}, [&] {
      auto comm = make(/*deadline=*/0.1, /*patience=*/0.2);
      comm.wait();
    });
  });
  EXPECT_LT(seconds, 3);
  EXPECT_TRUE(end_abruptly.exchange(false));

  auto other = std::make_unique<NiceMock<MockNccl>>();
  EXPECT_CALL(*other, init_rank).WillOnce(DoAll(SetArgPointee<0>(kComm), Return(ncclSuccess)));
  EXPECT_CALL(*other, async_error)
      .WillRepeatedly(DoAll(SetArgPointee<1>(ncclSuccess), Return(ncclSuccess)));
  EXPECT_CALL(*other, destroy).WillOnce(hangs);
  testing::internal::CaptureStderr();
  EXPECT_LT(seconds_of([&] {
              NcclCommunicator(host_, std::move(other), std::make_unique<NiceMock<MockDevice>>(),
                               20, /*patience_seconds=*/0.2);
            }),
            3);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("ncclCommDestroy: takes too long"));
  EXPECT_TRUE(end_abruptly.exchange(false));

  gate.set_value();
  while (MockNccl::alive > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_F(NcclCommunicatorTest, ADeviceThatFailsEndsInAnAbort) {
  EXPECT_CALL(*device_, passed_mark).WillOnce(testing::Throw(std::runtime_error("device error")));
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  EXPECT_CALL(*nccl_, finalize).Times(0);
  EXPECT_THROW(
      {
        auto comm = make();
        comm.wait();
      },
      std::runtime_error);
}

TEST_F(NcclCommunicatorTest, MemoryThatNcclDoesNotGetIsTheUsersToMend) {
  nccl_->detail = " (Cuda failure 2 'out of memory')";
  EXPECT_CALL(*nccl_, group_end).WillOnce(Return(ncclUnhandledCudaError));
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  expect_error(ExitCode::kBadConfig, {"ncclGroupEnd on rank 0", "batch.micro"}, [&] {
    auto comm = make();
    comm.group_begin();
    comm.group_end();
  });
}

// Every call that can fail, with every failure that NCCL knows.
struct Failure {
  const char* name;  // as it is reported
  std::function<void(MockNccl&, ncclResult_t)> set;
};

const std::array kFailures = {
    Failure{"ncclCommInitRankConfig",
            [](MockNccl& nccl, ncclResult_t result) {
              EXPECT_CALL(nccl, init_rank).WillOnce(DoAll(SetArgPointee<0>(kComm), Return(result)));
            }},
    Failure{"ncclGroupStart",
            [](MockNccl& nccl, ncclResult_t result) {
              EXPECT_CALL(nccl, group_start).WillOnce(Return(result));
            }},
    Failure{"ncclAllReduce",
            [](MockNccl& nccl, ncclResult_t result) {
              EXPECT_CALL(nccl, all_reduce).WillOnce(Return(result));
            }},
    Failure{"ncclGroupEnd",
            [](MockNccl& nccl, ncclResult_t result) {
              EXPECT_CALL(nccl, group_end).WillOnce(Return(result));
            }},
    Failure{"ncclBroadcast",
            [](MockNccl& nccl, ncclResult_t result) {
              EXPECT_CALL(nccl, broadcast).WillOnce(Return(result));
            }},
    Failure{"ncclAllGather",
            [](MockNccl& nccl, ncclResult_t result) {
              EXPECT_CALL(nccl, all_gather).WillOnce(Return(result));
            }},
    Failure{"all_gather",  // where it is waited for
            [](MockNccl& nccl, ncclResult_t result) {
              EXPECT_CALL(nccl, async_error)
                  .WillOnce(DoAll(SetArgPointee<1>(result), Return(ncclSuccess)));
            }},
    Failure{"all_gather",
            [](MockNccl& nccl, ncclResult_t result) {
              EXPECT_CALL(nccl, async_error).WillOnce(Return(result));
            }},
};

class NcclFailureTest : public NcclCommunicatorTest,
                        public testing::WithParamInterface<std::tuple<std::size_t, ncclResult_t>> {
};

TEST_P(NcclFailureTest, IsNamedAbortsOnceAndWaitsForNobody) {
  const auto& [which, result] = GetParam();
  const auto& failure = kFailures.at(which);
  failure.set(*nccl_, result);
  EXPECT_CALL(*nccl_, abort(kComm)).Times(1);
  EXPECT_CALL(*nccl_, finalize).Times(0);
  EXPECT_CALL(*nccl_, destroy).Times(0);
  std::array<float, 2> data{};
  const double seconds = seconds_of([&] {
    try {
      auto comm = make();
      comm.group_begin();
      comm.all_reduce(std::span(data));
      comm.group_end();
      comm.broadcast(std::span(data), 1);
      comm.all_gather(std::span<const float>(data).first(1), std::span<float>(data));
      comm.wait();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(std::string(failure.name) + " on rank 0"));
      EXPECT_THAT(error.what(), HasSubstr("nccl result"));
      const bool peer = result == ncclRemoteError || result == ncclSystemError;
      EXPECT_TRUE(error.code() == ExitCode::kPeerLost || !peer) << error.what();
    }
  });
  EXPECT_LT(seconds, 3);
}

INSTANTIATE_TEST_SUITE_P(EveryCall, NcclFailureTest,
                         testing::Combine(testing::Range(std::size_t{0}, kFailures.size()),
                                          testing::Values(ncclUnhandledCudaError, ncclSystemError,
                                                          ncclInternalError, ncclInvalidArgument,
                                                          ncclInvalidUsage, ncclRemoteError)));

// The libnccl of the wheel: loaded by its own path, and of the version of the headers.
TEST(NcclLibraryTest, TheRealLibraryHasEveryCall) {
  const auto nccl = load_nccl();
  int version = 0;
  ASSERT_EQ(nccl->get_version(&version), ncclSuccess);
  EXPECT_EQ(version, NCCL_VERSION_CODE);
  EXPECT_THAT(nccl->describe(ncclInvalidUsage, nullptr), HasSubstr("invalid usage"));
}

}  // namespace
}  // namespace lorascale::comm
