#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "support.hpp"

namespace lorascale::config {
namespace {

ReadResult read_with_ranks(const std::string& text, int world_size,
                           const std::vector<std::string>& overrides = {}) {
  return read_config_text(text, "test.yaml", {.overrides = overrides, .world_size = world_size});
}

bool reported(const ReadResult& result, const std::vector<std::string>& parts) {
  for (const auto& line : result.translations) {
    bool all = true;
    for (const auto& part : parts) {
      all = all && line.find(part) != std::string::npos;
    }
    if (all) {
      return true;
    }
  }
  return false;
}

constexpr const char* kFlat = R"(
train_data_dir: nowhere/texts
metadata_path: nowhere/metadata.csv
base_model: models/base
lora_rank: 4
lora_alpha: 12
batch_size: 4
gradient_accumulation_steps: 4
epochs: 10
learning_rate: 1e-4
optimizer: AdamW
lr_scheduler: cosine_with_restarts
warmup_steps: 100
resolution: 512
output_dir: runs/flat
save_steps: 50
)";

TEST(ConfigAliases, TranslateTheFlatForm) {
  const ReadResult result = read_with_ranks(kFlat, 1);
  const RunConfig expected = read(R"(
run: {output_dir: runs/flat}
model: {path: models/base}
adapter: {rank: 4, alpha: 12}
data: {train: nowhere/texts/train.h5}
batch: {global: 16, per_rank: 16, reference: 16, micro: 4}
optimizer: {name: adamw, lr: 1e-4}
schedule: {name: cosine, warmup: 100 steps}
budget: 10 epochs
checkpoint: {every: 50 steps}
)");
  EXPECT_EQ(to_string(differences(expected, result.config)), "");
  EXPECT_TRUE(reported(result, {"batch_size 4 × gradient_accumulation_steps 4 × 1 rank",
                                "batch.global 16, batch.micro 4; batch.reference 16"}));
  EXPECT_TRUE(reported(
      result, {"resolution 512", "metadata_path", "not needed", "scripts/prepare_images.py"}));
  EXPECT_TRUE(reported(result, {"optimizer AdamW → optimizer.name adamw"}));
  EXPECT_TRUE(reported(result, {"warmup_steps 100 → schedule.warmup 100 steps"}));
  // One line each; batch and accumulation share theirs. The last tells what the keys leave open.
  EXPECT_EQ(result.translations.size(), 14U);
}

TEST(ConfigAliases, TranslateTheNestedForm) {
  const ReadResult nested = read_with_ranks(R"(
model_config: {base_model: models/base, lora_rank: 4, lora_alpha: 12}
training_config:
  train_data_dir: nowhere/texts
  batch_size: 4
  gradient_accumulation_steps: 4
  epochs: 10
  learning_rate: 1e-4
  optimizer: adamw
  lr_scheduler: cosine
  warmup_steps: 100
  output_dir: runs/flat
  save_steps: 50
)",
                                            1);
  EXPECT_EQ(to_string(differences(read_with_ranks(kFlat, 1).config, nested.config)), "");
  EXPECT_TRUE(reported(nested, {"training_config.learning_rate 1e-4 → optimizer.lr"}));
}

TEST(ConfigAliases, CountBatchesPerRank) {
  const ReadResult four = read_with_ranks("batch_size: 2\ngradient_accumulation_steps: 3\n", 4);
  EXPECT_EQ(four.config.batch.global, 24);
  EXPECT_EQ(four.config.batch.micro, 2);
  EXPECT_EQ(four.config.batch.reference, 24);
  EXPECT_TRUE(reported(four, {"× 4 ranks", "batch.global 24", "count per rank"}));
  EXPECT_EQ(read_with_ranks("batch_size: 8\n", 2).config.batch.global, 16);
  const ReadResult alone = read_with_ranks("gradient_accumulation_steps: 8\n", 2);
  EXPECT_EQ(alone.config.batch.global, 16);
  EXPECT_EQ(alone.config.batch.micro, 1);
  EXPECT_TRUE(reported(alone, {"batch size 1 (none given)"}));
}

TEST(ConfigAliases, KeepWhatTheyCountedPerRank) {
  const auto batch = [](const std::string& text, int ranks, std::vector<std::string> set = {}) {
    return read_with_ranks(text, ranks, std::move(set)).config.batch;
  };
  EXPECT_EQ(batch("batch_size: 2\ngradient_accumulation_steps: 3\n", 4).per_rank, 6);
  EXPECT_EQ(batch("batch: {per_rank: 5}\n", 3).global, 15);
  // The folder of a run says both, and another number of ranks changes nothing of it.
  EXPECT_EQ(batch("batch: {global: 8, per_rank: 4}\n", 3).global, 8);
  EXPECT_EQ(batch("batch: {global: 8}\n", 3, {"batch.per_rank=4"}).global, 12);
  const auto set = batch("batch_size: 4\n", 3, {"batch.global=20"});
  EXPECT_EQ(set.global, 20);
  EXPECT_FALSE(set.per_rank);
}

TEST(ConfigAliases, GiveWayToOverrides) {
  const RunConfig config =
      read_with_ranks(kFlat, 1, {"batch.global=32", "optimizer.lr=3e-4"}).config;
  EXPECT_EQ(config.batch.global, 32);
  EXPECT_EQ(config.batch.reference, 16);
  EXPECT_EQ(config.optimizer.lr, 3e-4);
}

TEST(ConfigAliases, TakeCloseSpellings) {
  const RunConfig config = read_with_ranks(R"(
base_model_path: m
num_train_epochs: 2.5
seed: 3
lora_dropout: 0.1
target_modules: q_proj, v_proj,k_proj
max_seq_length: 1024
mixed_precision: bf16
weight_decay: 0.01
max_grad_norm: 0.5
gradient_checkpointing: true
logging_steps: 10
validation_file: v.h5
adam_beta2: 0.95
lr_scheduler_type: linear
warmup_ratio: 0.05
)",
                                           1)
                               .config;
  EXPECT_EQ(config.model.path, "m");
  EXPECT_EQ(config.budget, (Amount{2.5, Unit::kEpochs}));
  EXPECT_EQ(config.run.seed, 3U);
  EXPECT_EQ(config.adapter.targets, (std::vector<std::string>{"q_proj", "v_proj", "k_proj"}));
  EXPECT_EQ(config.data.sequence_length, 1024);
  EXPECT_EQ(config.model.dtype, "bf16");
  EXPECT_EQ(config.optimizer.clip_norm, 0.5);
  EXPECT_TRUE(config.model.recompute);
  EXPECT_EQ(config.data.validation, "v.h5");
  EXPECT_EQ(config.optimizer.beta1, 0.9);
  EXPECT_EQ(config.optimizer.beta2, 0.95);
  EXPECT_EQ(config.schedule.name, coordinator::ScheduleKind::kLinear);
  EXPECT_EQ(config.schedule.warmup, (Amount{0.05, Unit::kFraction}));
  EXPECT_EQ(read("max_train_steps: 500").budget, (Amount{500, Unit::kSteps}));
  EXPECT_EQ(read("mixed_precision: 'no'").model.dtype, "fp32");
  EXPECT_EQ(read("fp16: false\nbf16: true").model.dtype, "bf16");
  EXPECT_EQ(read("target_modules: [a, b]").adapter.targets, (std::vector<std::string>{"a", "b"}));
}

TEST(ConfigAliases, RefuseTwoSettingsOfOneThing) {
  struct {
    const char* text;
    std::vector<std::string> parts;
  } const cases[] = {
      {"learning_rate: 1e-4\noptimizer: {lr: 1e-4}\n",
       {"learning_rate", "optimizer.lr", "line 2", "keep one"}},
      {"lora_rank: 4\nnetwork_dim: 4\n", {"network_dim", "lora_rank", "adapter.rank"}},
      {"base_model: a\nmodel_config: {base_model: b}\n",
       {"model_config.base_model", "base_model", "model.path"}},
      {"epochs: 3\nmax_steps: 100\n", {"max_steps", "epochs", "budget"}},
      {"epochs: 3\nbudget: 3 epochs\n", {"epochs", "budget"}},
      {"batch_size: 4\nbatch: {global: 16}\n", {"batch_size", "batch.global"}},
      {"batch_size: 4\nbatch: {micro: 2}\n", {"batch_size", "batch.micro"}},
      {"batch_size: 4\ntrain_batch_size: 4\n", {"train_batch_size", "batch_size", "keep one"}},
      {"bf16: true\nfp16: true\n", {"fp16", "bf16", "model.dtype"}},
      {"warmup_steps: 3\nwarmup_ratio: 0.1\n", {"warmup_ratio", "warmup_steps"}},
  };
  for (const auto& [text, parts] : cases) {
    const Thrown thrown = refusal(text);
    EXPECT_EQ(thrown.code, 78) << text;
    expect_parts(thrown.message, parts);
  }
}

TEST(ConfigAliases, RefuseWhatCannotBeTranslated) {
  struct {
    const char* text;
    std::vector<std::string> parts;
  } const cases[] = {
      {"\nbatch_size: 0", {"test.yaml:2", "batch_size", "from 1"}},
      {"batch_size: 4.0", {"batch_size", "write 4"}},
      {"batch_size: auto", {"batch_size", "not a whole number"}},
      {"epochs: 0", {"epochs", "number in (0, 1000000000)"}},
      {"epochs: ten", {"epochs", "not a number"}},
      {"warmup_steps: 0.1", {"warmup_steps", "not a whole number"}},
      {"warmup_ratio: 5", {"warmup_ratio", "[0, 1]"}},
      {"optimizer: Lion", {"optimizer", "'Lion' is not offered", "adamw"}},
      {"lr_scheduler: polynomial", {"lr_scheduler", "'polynomial' is not offered", "cosine"}},
      {"mixed_precision: fp8", {"mixed_precision", "'fp8' is not offered"}},
      {"bf16: yes", {"bf16", "write true"}},
      {"lora_rank: 0", {"lora_rank (adapter.rank)", "from 1"}},
      {"learning_rate: 'fast'", {"learning_rate (optimizer.lr)", "'fast' is not a number"}},
      {"batch_size: 'four'", {"batch_size", "'four' is not a whole number"}},
      {"adam_beta1: 1.5", {"adam_beta1 (optimizer.betas)", "[0, 1)"}},
      {"target_modules: 'a,,b'", {"target_modules", "empty"}},
      {"train_data_dir: ~/data", {"train_data_dir", "'~'"}},
      {"save_total_limit: 1", {"save_total_limit (checkpoint.keep)", "from 2"}},
  };
  for (const auto& [text, parts] : cases) {
    const Thrown thrown = refusal(text);
    EXPECT_EQ(thrown.code, 78) << text;
    expect_parts(thrown.message, parts);
  }
}

TEST(ConfigAliases, TakeNumbersInQuotesAndSaySo) {
  const ReadResult result = read_with_ranks(
      "batch_size: '4'\ngradient_accumulation_steps: \"2\"\nepochs: '3'\nlearning_rate: '1e-4'\n",
      2);
  EXPECT_EQ(result.config.batch.global, 16);
  EXPECT_EQ(result.config.batch.micro, 4);
  EXPECT_EQ(result.config.budget, (Amount{3, Unit::kEpochs}));
  EXPECT_EQ(result.config.optimizer.lr, 1e-4);
  for (const char* key : {"batch_size", "gradient_accumulation_steps", "epochs", "learning_rate"}) {
    EXPECT_TRUE(reported(result, {key, "read without the quotes"})) << key;
  }
}

TEST(ConfigAliases, TakeEveryWayOfSayingAllLayers) {
  const std::vector<std::string> all = {"all-linear"};
  for (const char* text : {"lora_target: all", "lora_target: all-linear",
                           "lora_target_linear: true", "lora_target_modules: all"}) {
    EXPECT_EQ(read(text).adapter.targets, all) << text;
  }
  EXPECT_EQ(read("lora_target_linear: false").adapter.targets, RunConfig{}.adapter.targets);
  expect_parts(refusal("lora_target_linear: true\nlora_target_modules: [q_proj]\n").message,
               {"lora_target_linear", "lora_target_modules", "keep one"});
}

// Keys of which one value says what is done here anyway, and no other can be had.
TEST(ConfigAliases, RefuseWhatIsNotSupportedByNameAndWithTheRemedy) {
  struct {
    const char* key;
    std::vector<const char*> taken;
    const char* refused;
    std::vector<std::string> parts;
  } const cases[] = {
      {"load_in_4bit", {"false", "null", ""}, "true", {"model.dtype: bf16", "model.recompute"}},
      {"load_in_8bit", {"false"}, "true", {"model.dtype: bf16"}},
      {"quantization_bit", {"null", "none"}, "4", {"model.dtype: bf16"}},
      {"network_module", {"networks.lora"}, "networks.loha", {"LoRA", "networks.lora"}},
      {"lr_scheduler_num_cycles", {"1"}, "3", {"remove it"}},
      {"save_model_as", {"safetensors"}, "ckpt", {"safetensors"}},
      {"modules_to_save", {"null", "[]"}, "lm_head", {"new tokens", "adapter.type: full"}},
      {"lora_modules_to_save", {"[]"}, "embed_tokens", {"tokens that the model has"}},
      {"additional_target", {"none"}, "embed_tokens", {"adapter.type: full"}},
      {"trainable_token_indices", {"null"}, "5", {"new tokens"}},
  };
  for (const auto& [key, taken, refused, parts] : cases) {
    for (const char* value : taken) {
      const ReadResult result = read_with_ranks(std::string(key) + ": " + value + "\n", 1);
      EXPECT_EQ(result.config, RunConfig{}) << key;
      EXPECT_TRUE(reported(result, {key, "no effect"})) << key;
    }
    const Thrown thrown = refusal("\n" + std::string(key) + ": " + refused + "\n");
    EXPECT_EQ(thrown.code, 78);
    expect_parts(thrown.message, {"test.yaml:2: " + std::string(key),
                                  "'" + std::string(refused) + "' is not supported"});
    expect_parts(thrown.message, parts);
  }
}

// As peft's own configuration has it, among the adapter's settings.
TEST(ConfigAliases, WhatCannotBeHadIsRefusedByNameInItsSectionToo) {
  const auto thrown = refusal("adapter:\n  modules_to_save: [embed_tokens, lm_head]\n");
  expect_parts(thrown.message, {"test.yaml:2: modules_to_save", "[embed_tokens, lm_head]",
                                "not supported", "new tokens"});
  expect_parts(refusal("adapter: {loftq_config: {loftq_bits: 4}}\n").message,
               {"test.yaml:1: loftq_config", "not supported", "adapter.targets"});
  expect_parts(refusal("adapter: {lora_rank: 4}\n").message, {"unknown key 'adapter.lora_rank'"});
  expect_parts(refusal("optimizer: {use_dora: true}\n").message,
               {"unknown key 'optimizer.use_dora'"});
}

class ConfigAliasDataFolder : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void touch(const char* name) const { std::ofstream(folder_ / name) << "x"; }
  [[nodiscard]] std::string key() const { return "train_data_dir: \"" + folder_.string() + "\"\n"; }
  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      (std::string("config_alias_") +
       testing::UnitTest::GetInstance()->current_test_info()->name() + std::to_string(::getpid()));
};

TEST_F(ConfigAliasDataFolder, FindsTrainingAndValidationSet) {
  touch("train.h5");
  EXPECT_EQ(read(key()).data.train, (folder_ / "train.h5").string());
  EXPECT_EQ(read(key()).data.validation, std::nullopt);
  touch("val.h5");
  EXPECT_EQ(read(key()).data.validation, (folder_ / "val.h5").string());
  touch("validation.h5");
  const ReadResult both = read_with_ranks(key(), 1);
  EXPECT_EQ(both.config.data.validation, (folder_ / "validation.h5").string());
  EXPECT_TRUE(reported(both, {"→ data.validation", "validation.h5"}));
  // What is written out wins over what lies there.
  const ReadResult own = read_with_ranks(key() + "validation_file: own.h5\n", 1);
  EXPECT_EQ(own.config.data.validation, "own.h5");
  EXPECT_FALSE(reported(own, {"→ data.validation ", "/validation.h5"}));
  EXPECT_EQ(read(key() + "data: {validation: null}\n").data.validation, std::nullopt);
}

TEST_F(ConfigAliasDataFolder, IsItselfWhereNothingIsPreparedYet) {
  touch("texts.jsonl");
  const ReadResult raw = read_with_ranks(key(), 1);
  EXPECT_EQ(raw.config.data.train, folder_.string());
  EXPECT_TRUE(reported(raw, {"train_data_dir", "→ data.train " + folder_.string()}));
  const std::string file = (folder_ / "texts.jsonl").string();
  EXPECT_EQ(read("train_file: \"" + file + "\"\n").data.train, file);
  EXPECT_EQ(read("train_data_dir: nowhere/a.h5").data.train, "nowhere/a.h5");
}

}  // namespace
}  // namespace lorascale::config
