// Checkpoints of the trained state, written by rank 0 and loaded on 1 to 3 ranks, of which only
// rank 0 sees the folder.
#include "train/snapshot.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "comm/mpi_communicator.hpp"
#include "optim/by_name.hpp"
#include "support/rank_folder.hpp"
#include "support/tensors.hpp"
#include "train/saved_state.hpp"

namespace lorascale::train {
namespace {

namespace fs = std::filesystem;
using lorascale::test::noise;
using lorascale::test::same_bits;
using testing::HasSubstr;

struct Trained {
  adapters::TrainableParameters parameters;
  std::unique_ptr<optim::Optimizer> optimizer;
  at::Tensor statistics;
  at::Tensor rounded;  // what a 16-bit model computes with

  // Every element of its state has a value that follows from `seed`.
  explicit Trained(std::uint64_t seed, const std::string& name = "adamw", std::int64_t size = 37,
                   std::int64_t statistics_size = 6)
      : parameters({{{"lora_A"}, {{"a", {size}}}}}, at::kCPU),
        optimizer(optim::make_optimizer(name, {{0, size}}, parameters.master())) {
    if (statistics_size > 0) {
      statistics = at::zeros({statistics_size});
    }
    rounded = parameters.computed(parameters.entries()[0], at::kBFloat16);
    for (const auto& [name, tensor] : state().tensors()) {
      at::Tensor(tensor).copy_(noise(tensor.sizes(), seed++));
    }
    parameters.refresh();
  }
  [[nodiscard]] TrainedState state() const { return {parameters, *optimizer, statistics}; }
};

SnapshotFields fields_of(std::int64_t step) {
  return {step, 16 * step, 2, "run:\n  seed: 1\n", "data", "model", R"({"step": 3})"};
}

class SnapshotTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { spdlog::set_level(spdlog::level::off); }
  SnapshotTest() {
    if (host_.rank() == 0) {
      lock_.emplace(folder_.path());
    }
  }

  void save(std::int64_t step, const Trained& trained) {
    if (host_.rank() == 0) {
      save_snapshot(checkpoints(), fields_of(step), trained.state(), *lock_);
    }
  }
  std::optional<SnapshotFields> load(const Trained& into,
                                     std::optional<std::int64_t> in_vain = std::nullopt) {
    return load_newest_snapshot(
        world_, checkpoints(), into.state(), [](const SnapshotFields&) {}, in_vain);
  }
  // The message, which is the same on all ranks and says that the input is bad.
  std::string refusal(const Trained& into, ExitCode code) {
    testing::internal::CaptureStderr();
    std::string message = "loaded";
    try {
      load(into);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      message = error.what();
    }
    testing::internal::GetCapturedStderr();
    return message;
  }
  void spoil(std::int64_t step) {
    if (host_.rank() == 0) {
      std::ofstream(checkpoints() / io::checkpoint_name(step) / "state.json") << "{}";
    }
  }
  // On the other ranks there is no such folder.
  [[nodiscard]] fs::path checkpoints() const {
    return host_.rank() == 0 ? folder_ / "checkpoints" : fs::path("/nowhere");
  }

  comm::MpiCommunicator host_{30};
  World world_{host_, host_, at::kCPU, "here"};
  test::RankFolder folder_{host_};
  std::optional<io::RunLock> lock_;
};

TEST_F(SnapshotTest, ReachesEveryRankBitForBit) {
  for (const char* optimizer : {"adamw", "sgd"}) {
    const std::int64_t step = optimizer[0] == 'a' ? 3 : 4;
    Trained trained(1, optimizer);
    at::Tensor(trained.parameters.master())[3] = -0.0F;
    trained.statistics[2] = std::numeric_limits<float>::denorm_min();
    save(step, trained);
    const Trained other(100, optimizer);
    const void* place = other.statistics.data_ptr();
    const auto fields = load(other);
    ASSERT_TRUE(fields);
    EXPECT_EQ(fields->step, step);
    EXPECT_EQ(fields->samples, 16 * step);
    EXPECT_EQ(fields->world_size, 2);
    EXPECT_EQ(fields->config, "run:\n  seed: 1\n");
    EXPECT_EQ(fields->data_fingerprint, "data");
    EXPECT_EQ(fields->model_fingerprint, "model");
    EXPECT_EQ(fields->coordinator_state, R"({"step": 3})");
    EXPECT_EQ(state_digest(other.state()), state_digest(trained.state()));
    EXPECT_TRUE(same_bits(other.statistics, trained.statistics));
    EXPECT_EQ(other.statistics.data_ptr(), place) << "in the model's own tensor";
    EXPECT_TRUE(same_bits(other.rounded, trained.parameters.master().to(at::kBFloat16)));
  }
}

TEST_F(SnapshotTest, IsNothingWhereThereIsNone) {
  const Trained trained(1);
  const auto before = state_digest(trained.state());
  EXPECT_FALSE(load(trained));
  EXPECT_EQ(state_digest(trained.state()), before);
}

TEST_F(SnapshotTest, IsTheNewestThatIsIntact) {
  save(3, Trained(1));
  save(5, Trained(2));
  save(9, Trained(3));
  spoil(9);
  const Trained into(100);
  testing::internal::CaptureStderr();
  EXPECT_EQ(load(into)->step, 5);
  EXPECT_EQ(state_digest(into.state()), state_digest(Trained(2).state()));
  // Going back to the same one in vain is going to the one before it, while there is one.
  EXPECT_EQ(load(into, 5)->step, 3);
  EXPECT_EQ(state_digest(into.state()), state_digest(Trained(1).state()));
  EXPECT_EQ(load(into, 4)->step, 5) << "another is the newest";
  spoil(3);
  EXPECT_EQ(load(into, 5)->step, 5);
  spoil(5);
  testing::internal::GetCapturedStderr();
  EXPECT_THAT(refusal(into, ExitCode::kBadInput), HasSubstr("every checkpoint is damaged"));
}

TEST_F(SnapshotTest, OfAnotherRunIsRefused) {
  save(3, Trained(1));
  EXPECT_THAT(refusal(Trained(2, "sgd"), ExitCode::kBadConfig),
              HasSubstr("'momentum' does not fit this adapter and optimizer"));
  EXPECT_THAT(refusal(Trained(2, "adamw", 38), ExitCode::kBadConfig),
              HasSubstr("'parameters' does not fit"));
  EXPECT_THAT(refusal(Trained(2, "adamw", 37, 5), ExitCode::kBadConfig),
              HasSubstr("'statistics' does not fit"));
  save(4, Trained(1, "adamw", 37, 0));
  EXPECT_THAT(refusal(Trained(2), ExitCode::kBadConfig), HasSubstr("'statistics' does not fit"));
}

// What the caller finds wrong is found before a tensor is touched.
TEST_F(SnapshotTest, IsCheckedBeforeItIsTaken) {
  save(3, Trained(1));
  const Trained into(100);
  const auto before = state_digest(into.state());
  testing::internal::CaptureStderr();
  EXPECT_THROW(load_newest_snapshot(world_, checkpoints(), into.state(),
                                    [](const SnapshotFields& fields) {
                                      EXPECT_EQ(fields.step, 3);
                                      throw_bad_config("another run");
                                    }),
               Error);
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(state_digest(into.state()), before);
}

// An intact checkpoint of a later program.
TEST_F(SnapshotTest, OfAnotherVersionIsRefused) {
  for (const int version : {1, 2}) {
    if (host_.rank() == 0) {
      const Trained trained(1);
      save_snapshot(checkpoints(), fields_of(version), trained.state(), *lock_);
      const auto read = [&](const char* name) {
        const auto bytes = io::Checkpoint(checkpoints() / io::checkpoint_name(version)).read(name);
        return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      };
      auto json = nlohmann::json::parse(read("state.json"));
      json["version"] = version;
      const auto tensors = read("tensors.safetensors");
      io::CheckpointWriter writer(checkpoints(), version, lock_->generation());
      writer.add("tensors.safetensors", tensors);
      writer.add("state.json", json.dump());
      writer.commit("{}", {}, io::Existing::kReplaced);
    }
    const auto message = refusal(Trained(2), ExitCode::kBadInput);
    if (version == 1) {
      EXPECT_EQ(message, "loaded");
    } else {
      EXPECT_THAT(message, HasSubstr("use the program that wrote it"));
    }
  }
}

TEST_F(SnapshotTest, OfStatisticsThatAreNoNumbersIsNotWritten) {
  const Trained trained(1);
  trained.statistics[1] = std::numeric_limits<float>::quiet_NaN();
  if (host_.rank() == 0) {
    try {
      save(3, trained);
      ADD_FAILURE() << "saved";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kDiverged);
      EXPECT_THAT(error.what(), HasSubstr("'statistics'"));
    }
    EXPECT_TRUE(io::list_checkpoints(checkpoints()).empty());
  }
}

}  // namespace
}  // namespace lorascale::train
