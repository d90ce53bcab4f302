// What docs/extending.md promises, from its templates: a workload, an adapter and a model family of
// one's own train, validate, resume and are written without a change in src/train, src/coordinator
// or src/cli; and by any number of ranks alike.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "comm/local_communicator.hpp"
#include "comm/mpi_communicator.hpp"
#include "extending/toy_adapter.hpp"
#include "extending/toy_family.hpp"
#include "extending/toy_workload.hpp"
#include "support/rank_folder.hpp"
#include "train/trainer.hpp"

namespace lorascale::toys {
namespace {

namespace fs = std::filesystem;

class ExtendingTest : public testing::Test {
 protected:
  ExtendingTest() {
    config_.run.output_dir = folder_ / "run";
    config_.run.reduction = config::Reduction::kExact;
    config_.batch.global = 24;
    config_.batch.micro = 4;
    config_.budget = {12, Unit::kEpochs};
    config_.optimizer.lr = 0.05;
    config_.evaluate.every = {4, Unit::kEpochs};
    config_.sample.every = {0, Unit::kSteps};
  }

  train::Session open(bool scales) {
    train::Session session;
    session.config = config_;
    session.files.train = "points";
    session.workload = std::make_unique<PointWorkload>(config_.run.seed);
    const auto model = workloads::adapted_model(session.model(), config_);
    session.adapter = scales ? std::make_unique<ScaleAdapter>(config_.adapter, model)
                             : adapters::make_adapter(config_.adapter, model, config_.run.seed);
    train::complete_session(session, host_.size());
    return session;
  }
  ExitCode train(train::Session& session) {
    train::Watchdog watchdog(60);
    train::Trainer trainer(world_, session);
    return trainer.run(watchdog);
  }
  // The lines of metrics.jsonl, as rank 0 wrote them.
  std::vector<nlohmann::json> metrics() {
    host_.barrier();
    std::ifstream file(fs::path(config_.run.output_dir) / "metrics.jsonl");
    std::vector<nlohmann::json> lines;
    for (std::string line; std::getline(file, line);) {
      lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }

  comm::MpiCommunicator host_{30};
  train::World world_{host_, host_, at::kCPU, "here"};
  test::RankFolder folder_{host_};
  config::RunConfig config_;
};

TEST_F(ExtendingTest, AWorkloadTrainsWithTheAdaptersThatThereAre) {
  config_.adapter.type = "full";
  auto session = open(/*scales=*/false);
  EXPECT_EQ(train(session), ExitCode::kDone);
  const auto lines = metrics();
  ASSERT_FALSE(lines.empty());
  EXPECT_EQ(lines.back()["points"], 24);
  EXPECT_TRUE(lines.back().contains("points_per_s"));
  EXPECT_GT(lines.back()["val_accuracy"].get<double>(), 0.95);
  EXPECT_LT(lines.back()["val_loss"].get<double>(), lines.front()["val_loss"].get<double>() / 2);
  EXPECT_TRUE(fs::exists(fs::path(config_.run.output_dir) / "model" / "model.safetensors"));

  config_.run.output_dir += "-lora";
  config_.adapter.type = "lora";
  config_.adapter.rank = 2;
  config_.adapter.targets = {"all-linear"};
  auto with_lora = open(/*scales=*/false);
  EXPECT_EQ(train(with_lora), ExitCode::kDone);
  EXPECT_TRUE(
      fs::exists(fs::path(config_.run.output_dir) / "adapter" / "adapter_model.safetensors"));
}

TEST_F(ExtendingTest, AnAdapterTrainsAndIsWritten) {
  config_.adapter.targets = {"first", "second"};
  auto session = open(/*scales=*/true);
  const auto before = session.parameters().master().clone();
  EXPECT_EQ(train(session), ExitCode::kDone);
  EXPECT_FALSE(at::equal(session.parameters().master(), before));
  const auto lines = metrics();
  EXPECT_LT(lines.back()["val_loss"].get<double>(), lines.front()["val_loss"].get<double>());
  EXPECT_TRUE(fs::exists(fs::path(config_.run.output_dir) / "adapter" / "scales.safetensors"));
}

// The same bits on one rank as on those that this test was started on.
TEST_F(ExtendingTest, AnyNumberOfRanksComputesTheSame) {
  config_.adapter.type = "full";
  auto session = open(/*scales=*/false);
  EXPECT_EQ(train(session), ExitCode::kDone);
  const auto together = session.parameters().master().clone();
  comm::LocalCommunicator alone;
  train::World own{alone, alone, at::kCPU, "here"};
  config_.run.output_dir += "-alone-" + std::to_string(host_.rank());
  train::Session single;
  single.config = config_;
  single.files.train = "points";
  single.workload = std::make_unique<PointWorkload>(config_.run.seed);
  single.adapter = adapters::make_adapter(
      config_.adapter, workloads::adapted_model(single.model(), config_), config_.run.seed);
  train::complete_session(single, 1);
  train::Watchdog watchdog(60);
  train::Trainer trainer(own, single);
  EXPECT_EQ(trainer.run(watchdog), ExitCode::kDone);
  EXPECT_TRUE(at::equal(together, single.parameters().master()));
}

TEST(ExtendingFamilies, OneOfTheUsersOwnIsRead) {
  nlohmann::json json = {{"model_type", "toy"},     {"vocab_size", 64},
                         {"hidden_size", 32},       {"intermediate_size", 48},
                         {"num_hidden_layers", 2},  {"num_attention_heads", 2},
                         {"num_key_value_heads", 1}};
  const auto config =
      models::decoder::parse_decoder_config(json.dump(), "toy", std::span(&kToy, 1));
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_THROW(models::decoder::parse_decoder_config(json.dump(), "toy"), Error);
  json["parallel_blocks"] = true;
  EXPECT_THROW(models::decoder::parse_decoder_config(json.dump(), "toy", std::span(&kToy, 1)),
               Error);
}

}  // namespace
}  // namespace lorascale::toys
