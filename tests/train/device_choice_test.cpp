// The device of a rank on every kind of machine, none of them this one; and what ranks do about
// different kinds, on 1 to 4 of them.
#include "train/device_choice.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "comm/mpi_communicator.hpp"

namespace lorascale::train {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

// A node with eight GPUs and all in order, unless a test says otherwise.
struct FakeSystem : GpuSystem {
  std::map<std::string, std::string> variables;
  std::string sign = "/dev/nvidiactl";
  DriverAnswer driver{{}, 0, "CUDA_SUCCESS", 13000, 8};
  int built_for = 13;
  std::string load_failure;
  int usable = 8;

  int asked = 0, loaded = 0;
  std::optional<at::Device> used;

  std::optional<std::string> variable(const char* name) override {
    const auto found = variables.find(name);
    return found != variables.end() ? std::optional(found->second) : std::nullopt;
  }
  std::string sign_of_gpu() override { return sign; }
  DriverAnswer ask_driver() override {
    ++asked;
    return driver;
  }
  int torch_cuda_major() override { return built_for; }
  std::string load_torch() override {
    ++loaded;
    EXPECT_STREQ(last_heartbeat().phase, "loading the CUDA libraries");
    return load_failure;
  }
  int torch_gpus() override { return usable; }
  void use(at::Device device) override { used = device; }
};

FakeSystem without_any() {
  FakeSystem system;
  system.sign.clear();
  system.driver = {"libcuda.so.1: cannot open shared object file", 0, {}, 0, 0};
  return system;
}

constexpr int kLocalRank = 5;

DeviceChoice choose(FakeSystem& system, config::Device wanted = config::Device::kAuto) {
  return choose_device(wanted, {.local_rank = kLocalRank, .local_size = 8, .host = "node7"},
                       system);
}

TEST(DeviceChoiceTest, ARankTakesTheGpuOfItsNumber) {
  FakeSystem system;
  const auto choice = choose(system);
  EXPECT_EQ(choice.device, at::Device(at::kCUDA, 5));
  EXPECT_EQ(system.used, choice.device);
  EXPECT_THAT(choice.reason, IsEmpty());
  EXPECT_THAT(choice.driver, AllOf(HasSubstr("13.0"), HasSubstr("8 GPUs")));
}

// A container that was given GPU 5 has no /dev/nvidia0; the driver counts one.
TEST(DeviceChoiceTest, ARankThatSeesOneGpuTakesIt) {
  FakeSystem system;
  system.driver.gpus = system.usable = 1;
  EXPECT_EQ(choose(system).device, at::Device(at::kCUDA, 0));
}

TEST(DeviceChoiceTest, TheCpuIsTakenUnasked) {
  FakeSystem system;
  EXPECT_TRUE(choose(system, config::Device::kCpu).device.is_cpu());
  EXPECT_EQ(system.asked + system.loaded, 0);
}

TEST(DeviceChoiceTest, AMachineWithoutGpusNeedsNoWord) {
  auto system = without_any();
  const auto choice = choose(system);
  EXPECT_TRUE(choice.device.is_cpu());
  EXPECT_THAT(choice.reason, IsEmpty());
  EXPECT_EQ(system.loaded, 0) << "the CUDA half takes seconds to load";
}

// Each way to miss a GPU that is there: its reason with auto, and an error of it with cuda.
struct Miss {
  const char* name;
  std::function<void(FakeSystem&)> set;
  std::vector<std::string> words;
};

const std::vector<Miss>& misses() {
  static const std::vector<Miss> all = {
      {"HiddenByAnEmptyVariable",
       [](FakeSystem& s) { s.variables["CUDA_VISIBLE_DEVICES"] = ""; },
       {"CUDA_VISIBLE_DEVICES=''", "hides every GPU"}},
      {"HiddenByMinusOne",
       [](FakeSystem& s) { s.variables["CUDA_VISIBLE_DEVICES"] = "-1"; },
       {"CUDA_VISIBLE_DEVICES='-1'"}},
      {"NamedWrongly",
       [](FakeSystem& s) {
         s.variables["CUDA_VISIBLE_DEVICES"] = "9";
         s.driver.gpus = 0;
       },
       {"CUDA_VISIBLE_DEVICES='9' names none"}},
      {"NoDriverInTheContainer",
       [](FakeSystem& s) {
         s.driver = {"libcuda.so.1: cannot open shared object file", 0, {}, 0, 0};
       },
       {"libcuda.so.1: cannot open shared object file", "--gpus", "/dev/nvidiactl"}},
      {"NoDeviceNodes",
       [](FakeSystem& s) {
         s.driver = {{}, 100, "CUDA_ERROR_NO_DEVICE", 13000, 0};
         s.sign = "/sys/bus/pci/devices/0000:17:00.0";
       },
       {"CUDA_ERROR_NO_DEVICE", "--gpus", "0000:17:00.0"}},
      {"UpdatedDriver",
       [](FakeSystem& s) {
         s.driver = {{}, 803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", 0, 0};
       },
       {"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "restart"}},
      {"OldDriver",
       [](FakeSystem& s) { s.driver.version = 12080; },
       {"too old", "12.8", "CUDA 13"}},
      {"TorchWithoutCuda", [](FakeSystem& s) { s.built_for = 0; }, {"without CUDA"}},
      {"BrokenLibraries",
       [](FakeSystem& s) { s.load_failure = "libcudnn.so.9: cannot open shared object file"; },
       {"libcudnn.so.9: cannot open shared object file"}},
      {"NothingForTorch", [](FakeSystem& s) { s.usable = 0; }, {"libtorch sees no GPU"}},
  };
  return all;
}

class MissedGpuTest : public testing::TestWithParam<std::size_t> {};

TEST_P(MissedGpuTest, HasItsReason) {
  const auto& miss = misses().at(GetParam());
  SCOPED_TRACE(miss.name);
  FakeSystem system;
  miss.set(system);
  const auto choice = choose(system);
  EXPECT_TRUE(choice.device.is_cpu());
  EXPECT_FALSE(system.used.has_value());
  for (const auto& word : miss.words) {
    EXPECT_THAT(choice.reason, HasSubstr(word));
  }
  try {
    choose(system, config::Device::kCuda);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadConfig);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("node7"), HasSubstr("run.device: cpu")));
    EXPECT_THAT(error.what(), HasSubstr(miss.words.front()));
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, MissedGpuTest, testing::Range(std::size_t{0}, std::size_t{10}));

TEST(DeviceChoiceTest, AWishForCudaOnAMachineWithoutIsRefused) {
  auto system = without_any();
  EXPECT_THROW(choose(system, config::Device::kCuda), Error);
  system.variables["CUDA_VISIBLE_DEVICES"] = "";
  EXPECT_THROW(choose(system, config::Device::kCuda), Error);
  EXPECT_THAT(choose(system).reason, IsEmpty());
}

// Whatever this machine is, asking it costs nothing and never throws.
TEST(DeviceChoiceTest, ThisMachineAnswers) {
  const auto system = gpu_system();
  const auto driver = system->ask_driver();
  EXPECT_NE(driver.load_error.empty(), driver.result_name.empty());
  static_cast<void>(system->sign_of_gpu());
}

class AgreementTest : public testing::Test {
 protected:
  std::string refused(const DeviceChoice& mine) {
    testing::internal::CaptureStderr();
    std::string message;
    try {
      agree_on_kind(host_, mine, "node" + std::to_string(host_.rank()));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadConfig);
      message = error.what();
    }
    testing::internal::GetCapturedStderr();
    return message;
  }
  comm::MpiCommunicator host_{20};
};

const DeviceChoice kGpu{at::Device(at::kCUDA, 0), {}, "driver"};
const DeviceChoice kFallBack{at::Device(at::kCPU), "the driver is too old", {}};

TEST_F(AgreementTest, RanksOfOneKindGoOn) {
  EXPECT_THAT(refused(kGpu), IsEmpty());
  EXPECT_THAT(refused(kFallBack), IsEmpty());
}

TEST_F(AgreementTest, TheOddOneIsNamedWithItsReasonOnEveryRank) {
  if (host_.size() < 3) {
    GTEST_SKIP() << "needs three ranks";
  }
  const int last = host_.size() - 1;
  const auto message = refused(host_.rank() == last ? kFallBack : kGpu);
  EXPECT_THAT(message, HasSubstr("1 of " + std::to_string(host_.size()) +
                                 " ranks compute on the CPU, the others on GPUs"));
  const auto name = std::to_string(last);
  EXPECT_THAT(message, HasSubstr("rank " + name + " (node" + name + ": the driver is too old)"));
  EXPECT_THAT(message, testing::Not(HasSubstr("node0")));

  const auto other = refused(host_.rank() == 1 ? kGpu : kFallBack);
  EXPECT_THAT(other, HasSubstr("ranks compute on a GPU, the others on the CPU: rank 1 (node1)"));
}

TEST_F(AgreementTest, OfTwoTheOneOnTheCpuIsOdd) {
  if (host_.size() != 2) {
    GTEST_SKIP() << "needs two ranks";
  }
  EXPECT_THAT(refused(host_.rank() == 0 ? kFallBack : kGpu),
              HasSubstr("rank 0 (node0: the driver is too old)"));
}

}  // namespace
}  // namespace lorascale::train
