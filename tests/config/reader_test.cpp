#include "config/reader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "config/resolved.hpp"
#include "support.hpp"

namespace lorascale::config {
namespace {

// The example of the contract, as users write it.
constexpr const char* kExample = R"(
run:        {output_dir: runs/demo, seed: 7, resume: auto, reduction: fast}
model:      {path: models/base, dtype: bf16}
adapter:    {type: lora, rank: 8, alpha: 16, dropout: 0.0, targets: [q_proj, v_proj], init_from: null}
data:       {train: data/train.h5, validation: null, shuffle: true, sequence_length: 512, packing: true}
batch:      {global: 64, reference: 16, micro: auto, policy: fixed}
optimizer:  {name: adamw, lr: 2e-4, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, clip_norm: 1.0}
scale:      {rule: sqrt, betas: false, eps: false, weight_decay: false}
schedule:   {name: cosine, warmup: 3%, floor: 0.0}
budget:     3 epochs
checkpoint: {every: 500 steps, keep: 3}
evaluate:   {every: 100 steps, early_stop: {patience: 5, min_delta: 0.0}}
sample:     {every: 500 steps, prompts: []}
)";

TEST(ReadConfig, TakesTheExampleOfTheContract) {
  const RunConfig config = read(kExample);
  EXPECT_EQ(config.run.output_dir, "runs/demo");
  EXPECT_EQ(config.run.seed, 7U);
  EXPECT_EQ(config.batch.global, 64);
  EXPECT_EQ(config.batch.reference, 16);
  EXPECT_EQ(config.batch.micro, std::nullopt);
  EXPECT_EQ(config.scale.rule, coordinator::ScaleRule::kSqrt);
  EXPECT_EQ(config.schedule.warmup.unit, Unit::kFraction);
  EXPECT_DOUBLE_EQ(config.schedule.warmup.value, 0.03);
  EXPECT_EQ(config.evaluate.early_stop.patience, 5);
  EXPECT_EQ(config.adapter.init_from, std::nullopt);
}

TEST(ReadConfig, KeepsDefaultsWhereNothingIsWritten) {
  EXPECT_EQ(read(""), RunConfig{});
  EXPECT_EQ(read("adapter:\noptimizer: {}\n"), RunConfig{});
  EXPECT_EQ(read("optimizer: {lr: 1}").optimizer.beta2, 0.999);
}

TEST(ReadConfig, PrefersOverridesAndOfThoseTheLast) {
  const std::string file = "optimizer: {lr: 1e-3}\nadapter: {targets: [a]}\n";
  const RunConfig config =
      read(file, {"optimizer.lr=5e-4", "adapter.targets=[q_proj, k_proj]", "optimizer.lr=6e-4",
                  "evaluate.early_stop={patience: 4}", "data.validation=v=1.h5", "batch.micro=auto",
                  "budget=2 epochs", "sample.prompts=Hello there"});
  EXPECT_EQ(config.optimizer.lr, 6e-4);
  EXPECT_EQ(config.adapter.targets, (std::vector<std::string>{"q_proj", "k_proj"}));
  EXPECT_EQ(config.evaluate.early_stop.patience, 4);
  EXPECT_EQ(config.data.validation, "v=1.h5");
  EXPECT_EQ(config.budget, (Amount{2, Unit::kEpochs}));
  EXPECT_EQ(config.sample.prompts, std::vector<std::string>{"Hello there"});
  EXPECT_EQ(read("data: {validation: a.h5}", {"data.validation="}).data.validation, std::nullopt);
}

// What was written is told from what is so by default, by whatever key it was written.
TEST(ReadConfig, KnowsWhatWasGiven) {
  const auto given = [](const std::string& text, const std::vector<std::string>& overrides = {}) {
    return read_config_text(text, "test.yaml", {.overrides = overrides, .world_size = 1}).given;
  };
  using Paths = std::set<std::string>;
  EXPECT_EQ(given(""), Paths{});
  EXPECT_EQ(given("adapter: {rank: 8, targets: [q_proj]}"),
            (Paths{"adapter.rank", "adapter.targets"}));
  EXPECT_EQ(given("lora_alpha: 16"), Paths{"adapter.alpha"});
  EXPECT_EQ(given("adapter: {rank: 8}", {"adapter.dropout=0", "adapter={rslora: false}"}),
            (Paths{"adapter.rank", "adapter.dropout", "adapter.rslora"}));
}

TEST(ReadConfig, TakesEverySpellingOfAValue) {
  EXPECT_EQ(read("adapter: {targets: all-linear}").adapter.targets,
            std::vector<std::string>{"all-linear"});
  EXPECT_EQ(read("batch: {micro: null}").batch.micro, std::nullopt);
  EXPECT_EQ(read("batch: {micro:}").batch.micro, std::nullopt);
  EXPECT_EQ(read("scale: {rule: auto}").scale.rule, std::nullopt);
  EXPECT_EQ(read("budget: \"500 steps\"").budget, (Amount{500, Unit::kSteps}));
  EXPECT_EQ(read("checkpoint: {every: 250}").checkpoint.every, (Amount{250, Unit::kSteps}));
  EXPECT_EQ(read("evaluate: {every: 0}").evaluate.every.value, 0);
  EXPECT_EQ(read("schedule: {warmup: 0}").schedule.warmup.value, 0);
  EXPECT_EQ(read("optimizer: {lr: 5.0}").optimizer.lr, 5.0);
  EXPECT_EQ(read("model: {path: '010'}").model.path, "010");
  EXPECT_EQ(read("model: {path: 010}").model.path, "010");
  EXPECT_EQ(read("data: {validation: 'no'}").data.validation, "no");
}

struct Case {
  std::string text;
  std::vector<std::string> parts;
};

TEST(ReadConfig, RefusesUnknownKeysAndNamesTheNearest) {
  const Case cases[] = {
      {"# x\nadapter:\n  rnak: 8\n", {"test.yaml:3", "'adapter.rnak'", "'adapter.rank'"}},
      {"adpter: {rank: 8}\n", {"test.yaml:1", "'adpter'", "'adapter'"}},
      {"lr: 1e-4\n", {"'lr'", "'optimizer.lr'"}},
      {"push_to_hob: true\n", {"unknown key 'push_to_hob'", "--help"}},
      {"optimizer: {rank: 4}\n", {"'optimizer.rank'", "'adapter.rank'"}},
      {"schedul: {name: cosine}\n", {"'schedule'"}},
      {"optimizer: {learning_rate: 1}\n", {"'optimizer.lr'"}},
      {"learning_rat: 1\n", {"'learning_rate'"}},
      {"evaluate: {early_stop: {patiense: 1}}\n", {"'evaluate.early_stop.patience'"}},
      {"zzzzzzzzzzzz: 1\n", {"unknown key 'zzzzzzzzzzzz'", "--help"}},
      {"optimizer.lr: 1\n", {"nested", "optimizer: {lr: ...}"}},
      {"optimizer: {beta1: 0.9}\n", {"unknown key 'optimizer.beta1'", "'optimizer.betas'"}},
      {"optimizer: adamx\n", {"optimizer", "adamw"}},
      {"model: models/base\n", {"model is a section", "model: {path: ...}"}},
      {"adapter: [lora]\n", {"adapter is a section"}},
      {"[a, b]\n", {"map of sections"}},
      {"just text\n", {"map of sections"}},
      {"training_config: {zzzzzzz: 1}\n", {"unknown key 'training_config.zzzzzzz'"}},
      {"training_config: 5\n", {"training_config is a section"}},
      {std::string(500, 'k') + ": 1\n", {"unknown key", "..."}},
      {"\"a\\nb\": 1\n", {"unknown key 'a\\x0ab'"}},
  };
  for (const auto& [text, parts] : cases) {
    const Thrown thrown = refusal(text);
    EXPECT_EQ(thrown.code, 78) << text;
    expect_parts(thrown.message, parts);
  }
}

const Case kBadValues[] = {
    {"adapter: {rank: 0}", {"test.yaml:1", "adapter.rank", "'0'", "from 1"}},
    {"adapter: {rank: 8.0}", {"adapter.rank", "write 8"}},
    {"adapter: {rank: 010}", {"adapter.rank", "write 10"}},
    {"adapter: {rank: 1_000}", {"adapter.rank", "write 1000"}},
    {"adapter: {rank: 'eight'}", {"adapter.rank", "'eight' is not a whole number"}},
    {"adapter: {rank: '0'}", {"adapter.rank", "'0' is out of range"}},
    {"adapter: {rank: [8]}", {"adapter.rank", "not a list"}},
    {"adapter: {rank: {a: 1}}", {"adapter.rank", "not a map"}},
    {"adapter: {rank: }", {"adapter.rank", "has no value"}},
    {"adapter: {rank: yes}", {"adapter.rank", "not a whole number"}},
    {"adapter: {rank: 99999999999999999999}", {"adapter.rank", "out of range"}},
    {"adapter: {alpha: 0}", {"adapter.alpha", "number > 0"}},
    {"adapter: {dropout: 1}", {"adapter.dropout", "[0, 1)"}},
    {"adapter: {dropout: -0.1}", {"adapter.dropout", "[0, 1)"}},
    {"adapter: {rslora: yes}", {"adapter.rslora", "write true"}},
    {"adapter: {rslora: off}", {"adapter.rslora", "write false"}},
    {"adapter: {rslora: 'yes'}", {"adapter.rslora", "write true"}},
    {"data: {packing: off}", {"data.packing", "'off'", "write false"}},
    {"data: {packing: Yes}", {"data.packing", "'Yes'", "write true"}},
    {"data: {packing: maybe}", {"data.packing", "'maybe' is neither true nor false"}},
    {"adapter: {targets: []}", {"adapter.targets", "empty", "all-linear"}},
    {"adapter: {targets: }", {"adapter.targets", "empty"}},
    {"adapter: {targets: ['']}", {"adapter.targets", "empty"}},
    {"adapter: {targets: [[a]]}", {"adapter.targets", "list"}},
    {"adapter: {type: dora}", {"adapter.type", "'dora'", "lora | ia3 | token | full"}},
    {"adapter: {rank_pattern: [a]}", {"adapter.rank_pattern", "map"}},
    {"adapter: {rank_pattern: {q_proj: 0}}", {"adapter.rank_pattern", "'q_proj'", "'0'"}},
    {"optimizer: {lr: 0}", {"optimizer.lr", "number > 0"}},
    {"optimizer: {lr: -1e-4}", {"optimizer.lr", "number > 0"}},
    {"optimizer: {lr: .nan}", {"optimizer.lr", "not finite"}},
    {"optimizer: {lr: fast}", {"optimizer.lr", "'fast' is not a number"}},
    {"optimizer: {lr: 'fast'}", {"optimizer.lr", "'fast' is not a number"}},
    {"optimizer: {betas: [0.9, 1.0]}", {"optimizer.betas", "'1.0'", "[0, 1)"}},
    {"optimizer: {betas: [0.9]}", {"optimizer.betas", "two numbers"}},
    {"optimizer: {betas: 0.9}", {"optimizer.betas", "two numbers"}},
    {"optimizer: {clip_norm: -1}", {"optimizer.clip_norm", ">= 0"}},
    {"optimizer: {name: lion}", {"optimizer.name", "'lion'", "adamw | sgd"}},
    {"run: {reduction: sorted}", {"run.reduction", "fast | exact"}},
    {"run: {resume: maybe}", {"run.resume", "auto | never"}},
    {"run: {device: tpu}", {"run.device", "auto | cpu | cuda"}},
    {"run: {seed: -1}", {"run.seed", "negative"}},
    {"run: {output_dir: }", {"run.output_dir", "has no value"}},
    {"batch: {policy: adaptive}", {"batch.policy", "write fixed"}},
    {"batch: {micro: 0}", {"batch.micro"}},
    {"batch: {micro: no}", {"batch.micro", "write auto"}},
    {"scale: {rule: cubic}", {"scale.rule", "none | linear | sqrt | power | adascale"}},
    {"schedule: {name: polynomial}", {"schedule.name", "constant | linear | cosine | wsd"}},
    {"schedule: {warmup: 100}", {"schedule.warmup", "no unit", "100 steps"}},
    {"schedule: {warmup: 1k}", {"schedule.warmup", "no unit"}},
    {"schedule: {warmup: 10 min}", {"schedule.warmup", "minutes"}},
    {"schedule: {warmup: 150%}", {"schedule.warmup", "too large"}},
    {"schedule: {floor: 1.5}", {"schedule.floor", "[0, 1]"}},
    {"budget: 3", {"budget", "'3' has no unit", "'3 epochs'"}},
    {"budget: 0", {"budget", "more than 0"}},
    {"budget: 0 steps", {"budget", "more than 0"}},
    {"budget: 50%", {"budget", "%"}},
    {"budget: 3 parsecs", {"budget", "'3 parsecs' is not an amount"}},
    {"budget: 1_000 steps", {"budget", "write 1000"}},
    {"budget: 010 steps", {"budget", "write 10"}},
    {"budget: -3 epochs", {"budget", "not an amount"}},
    {"budget: \"3\\nepochs\"", {"budget", "'3\\x0aepochs' is not an amount"}},
    {"budget: 1.5 steps", {"budget", "whole number of steps"}},
    {"budget: 1e30 samples", {"budget", "too large"}},
    {"budget: '3'", {"budget", "'3' has no unit"}},
    {"checkpoint: {keep: 1}", {"checkpoint.keep", "from 2"}},
    {"sample: {every: 5 min}", {"sample.every", "minutes"}},
    {"sample: {prompts: [a: b]}", {"sample.prompts", "map", "quotes"}},
    {"sample: {top_p: 0}", {"sample.top_p", "(0, 1]"}},
    {"data: {sequence_length: 1}", {"data.sequence_length", "from 2"}},
    {"data: {validation: None}", {"data.validation", "write null"}},
    {"data: {validation: false}", {"data.validation", "write null"}},
    {"model: {path: ~/models}", {"model.path", "'~' is not expanded"}},
    {"model: {dtype: int8}", {"model.dtype", "auto | bf16 | fp16 | fp32"}},
};

TEST(ReadConfig, RefusesValuesThatDoNotFit) {
  for (const auto& [text, parts] : kBadValues) {
    const Thrown thrown = refusal(text);
    EXPECT_EQ(thrown.code, 78) << text;
    expect_parts(thrown.message, parts);
  }
}

// The lines of a message, each cut to the length of what is expected of it.
std::vector<std::string> beginnings(const std::string& message,
                                    const std::vector<std::string>& expected) {
  std::vector<std::string> lines;
  std::istringstream stream(message);
  for (std::string line; std::getline(stream, line);) {
    const std::size_t at = lines.size();
    lines.push_back(line.substr(0, at < expected.size() ? expected[at].size() : 40));
  }
  return lines;
}

// A slip of the pen is named; another word of about that shape is not.
TEST(ReadConfig, SuggestsWhatWasMeantAndNothingElse) {
  const auto message = [](const std::string& key) { return refusal(key + ": 1\n").message; };
  EXPECT_THAT(message("buget"), ::testing::HasSubstr("did you mean 'budget'?"));
  EXPECT_THAT(message("optimizr"), ::testing::HasSubstr("did you mean 'optimizer'?"));
  EXPECT_THAT(message("modle"), ::testing::HasSubstr("did you mean 'model'?"));
  EXPECT_THAT(message("scles"), ::testing::Not(::testing::HasSubstr("did you mean")));
  for (const char* other : {"chunk", "swirl", "phase", "scent"}) {
    EXPECT_THAT(message(other), ::testing::Not(::testing::HasSubstr("did you mean"))) << other;
  }
}

TEST(ReadConfig, NamesTheKeysOfASectionWhereNoneIsMeant) {
  const auto message = [](const std::string& path) { return refusal("", {path + "=1"}).message; };
  EXPECT_THAT(message("data.augment.rotate"),
              ::testing::AllOf(::testing::HasSubstr("; data.augment has flip, shift"),
                               ::testing::Not(::testing::HasSubstr("did you mean"))));
  EXPECT_THAT(message("model.resnet.depth"),
              ::testing::HasSubstr("; model.resnet has block, layers, width, norm"));
  EXPECT_THAT(message("model.resnet.laiers"), ::testing::HasSubstr("'model.resnet.layers'?"));
  EXPECT_THAT(message("augment.flip"), ::testing::HasSubstr("'data.augment.flip'?"));
  EXPECT_THAT(message("cache_latents"), ::testing::HasSubstr("a key of other trainers that is"));
}

TEST(ReadConfig, ListsEveryProblemInTheOrderOfTheFile) {
  const std::vector<std::string> three = {"test.yaml:1: adapter.rank",
                                          "test.yaml:2: unknown key 'optimiser'; did you mean "
                                          "'optimizer'?",
                                          "test.yaml:3: optimizer.lr: 'x' is not a number"};
  EXPECT_EQ(
      beginnings(refusal("adapter: {rank: 0}\noptimiser: 1\noptimizer: {lr: x}\n", {}, 3).message,
                 three),
      three);
  const std::vector<std::string> two = {"test.yaml:1: adapter.rank", "test.yaml:1: adapter.alpha"};
  EXPECT_EQ(beginnings(refusal("adapter: {rank: 0, alpha: 0}\n", {}, 2).message, two), two);
  // Aliases are translated after the walk, yet what stands first in the file is shown first.
  const std::vector<std::string> alias = {"test.yaml:1: learning_rate (optimizer.lr)",
                                          "test.yaml:2: adapter.rank", "--set 'budget=3': budget"};
  EXPECT_EQ(
      beginnings(refusal("learning_rate: x\nadapter: {rank: 0}\n", {"budget=3"}, 3).message, alias),
      alias);
}

TEST(ReadConfig, CountsWhatIsTooMuchToShow) {
  std::string text;
  for (int i = 0; i < 25; ++i) {
    text += "nonsense" + std::to_string(i) + ": 1\n";
  }
  const Thrown thrown = refusal(text, {}, 21);
  expect_parts(thrown.message, {"test.yaml:1: ", "\ntest.yaml:20: ", "\nand 5 more problems"});
  EXPECT_EQ(thrown.message.find("test.yaml:21"), std::string::npos);
}

TEST(ReadConfig, ReadsNumbersInQuotesAndSaysSo) {
  const ReadResult result = read_config_text(
      "optimizer: {lr: '2e-4', betas: ['0.8', \"0.9\"]}\nadapter: {rank: '16', rslora: 'true', "
      "rank_pattern: {q_proj: '4'}}\ncheckpoint: {every: '500'}\nbatch: {micro: 'auto'}\n",
      "test.yaml", {.overrides = {"batch.global='32'"}});
  EXPECT_EQ(result.config.optimizer.lr, 2e-4);
  EXPECT_EQ(result.config.optimizer.beta1, 0.8);
  EXPECT_EQ(result.config.optimizer.beta2, 0.9);
  EXPECT_EQ(result.config.adapter.rank, 16);
  EXPECT_TRUE(result.config.adapter.rslora);
  EXPECT_EQ(result.config.adapter.rank_pattern.at("q_proj"), 4);
  EXPECT_EQ(result.config.checkpoint.every, (Amount{500, Unit::kSteps}));
  EXPECT_EQ(result.config.batch.micro, std::nullopt);
  EXPECT_EQ(result.config.batch.global, 32);
  ASSERT_EQ(result.translations.size(), 8U);
  EXPECT_TRUE(result.translations[0].starts_with("optimizer.lr: read without the quotes"));
  // Quotes around text are as it should be.
  EXPECT_TRUE(read_config_text("optimizer: {name: 'adamw'}\nbudget: '3 epochs'\n", "t", {})
                  .translations.empty());
}

TEST(ReadConfig, RefusesOverridesThatAreNone) {
  struct {
    std::string override;
    int code;
    std::vector<std::string> parts;
  } const cases[] = {
      {"optimizer.lr", 64, {"--set 'optimizer.lr'", "key.path=value"}},
      {"=3", 64, {"--set"}},
      {"optimizer.lr=abc", 78, {"--set 'optimizer.lr=abc'", "not a number"}},
      {"optimizer.rl=1", 78, {"--set", "unknown key 'optimizer.rl'", "'optimizer.lr'"}},
      {"learning_rate=1", 78, {"--set", "'optimizer.lr'"}},
      {"adapter.targets=[a", 78, {"--set", "bracket is not closed"}},
      {"model.path=@x", 78, {"--set", "quotes"}},
      {"optimizer=adamw", 78, {"optimizer is a section"}},
      {"optimizer={lr: x}", 78, {"--set", "optimizer.lr"}},
      {"sample.prompts=a: b", 78, {"quotes"}},
  };
  for (const auto& [override, code, parts] : cases) {
    const Thrown thrown = refusal("", {override});
    EXPECT_EQ(thrown.code, code) << override;
    expect_parts(thrown.message, parts);
  }
}

TEST(ReadConfig, NamesTheLineOfBadYaml) {
  const Thrown thrown = refusal("a: 1\nb: &x 2\n");
  EXPECT_EQ(thrown.code, 78);
  expect_parts(thrown.message, {"test.yaml:2: anchor"});
}

class ReadConfigFile : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return (folder_ / name).string();
  }
  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      (std::string("config_reader_") +
       testing::UnitTest::GetInstance()->current_test_info()->name() + std::to_string(::getpid()));
};

TEST_F(ReadConfigFile, ReadsAndNamesTheFile) {
  const std::string good = write("good.yaml", "optimizer: {lr: 1e-3}\n");
  EXPECT_EQ(read_config_file(good).config.optimizer.lr, 1e-3);
  const std::string bad = write("bad.yaml", "\n\noptimizer: {lr: x}\n");
  expect_parts(thrown_by([&] { read_config_file(bad); }).message, {bad + ":3: optimizer.lr"});
}

TEST_F(ReadConfigFile, LeavesRelativePathsAsWritten) {
  const std::string file = write("paths.yaml", "model: {path: models/base}\n");
  EXPECT_EQ(read_config_file(file).config.model.path, "models/base");
}

TEST_F(ReadConfigFile, RefusesWhatIsNoFile) {
  const Thrown missing = thrown_by([&] { read_config_file(folder_ / "none.yaml"); });
  EXPECT_EQ(missing.code, 65);
  expect_parts(missing.message, {"no configuration", "none.yaml"});
  const Thrown folder = thrown_by([&] { read_config_file(folder_); });
  EXPECT_EQ(folder.code, 65);
  expect_parts(folder.message, {"not a regular file"});
  const std::string pipe = (folder_ / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(thrown_by([&] { read_config_file(pipe); }).code, 65);  // and does not wait for a writer
  const Thrown huge =
      thrown_by([&] { read_config_file(write("huge.yaml", std::string(2U << 20, '#'))); });
  expect_parts(huge.message, {"huge.yaml:1", "1 MiB"});
}

}  // namespace
}  // namespace lorascale::config
