#include "config/validate.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <utility>

#include "support.hpp"

namespace lorascale::config {
namespace {

RunConfig good() {
  return read("model: {path: m}\ndata: {train: t.h5}\n");
}
RunConfig good_with(const std::vector<std::string>& overrides) {
  return read("model: {path: m}\ndata: {train: t.h5}\n", overrides);
}

TEST(ValidateConfig, AcceptsDefaultsWithModelAndData) {
  EXPECT_TRUE(validate(good()).empty());
  EXPECT_TRUE(validate(read("model: {path: m}"), Purpose::kModelOnly).empty());
}

TEST(ValidateConfig, RefusesContradictions) {
  struct {
    std::vector<std::string> overrides;
    std::vector<std::string> parts;
  } const cases[] = {
      {{"model.path=''"}, {"model.path is not set"}},
      {{"data.train=''"}, {"data.train is not set"}},
      {{"run.output_dir=''"}, {"run.output_dir is empty"}},
      {{"data.validation=''"}, {"data.validation is empty", "null"}},
      {{"adapter.init_from=''"}, {"adapter.init_from is empty"}},
      {{"batch.global=16", "batch.micro=5"},
       {"batch.micro 5", "does not divide batch.global 16", "batch.micro 4 or 8",
        "batch.global 15 or 20"}},
      {{"batch.global=7", "batch.micro=4"}, {"batch.micro 1 or 7", "batch.global 4 or 8"}},
      {{"batch.global=4", "batch.micro=8"}, {"batch.micro 4", "batch.global 8"}},
      {{"evaluate.early_stop.patience=3"}, {"evaluate.early_stop", "data.validation"}},
      {{"evaluate.early_stop.patience=3", "data.validation=v.h5", "evaluate.every=0"},
       {"evaluate.early_stop", "evaluate.every"}},
      {{"adapter.targets=[a, a]"}, {"adapter.targets", "twice"}},
      {{"adapter.targets=[all-linear, q_proj]"}, {"all-linear", "alone"}},
      {{"schedule.name=wsd", "schedule.warmup=60%", "schedule.decay=50%"},
       {"schedule.warmup", "schedule.decay", "100%"}},
      {{"schedule.warmup=200 steps", "budget=100 steps"},
       {"schedule.warmup: 200 steps is longer than the run, budget: 100 steps"}},
  };
  for (const auto& [overrides, parts] : cases) {
    const RunConfig config = good_with(overrides);
    const Thrown thrown = thrown_by([&] { validate(config); });
    EXPECT_EQ(thrown.code, 78) << parts.front();
    expect_parts(thrown.message, parts);
  }
}

// Against all divisors by trial.
TEST(ValidateConfig, NamesTheNearestMicroBatches) {
  for (std::int64_t global = 1; global <= 60; ++global) {
    for (std::int64_t micro = 1; micro <= 64; ++micro) {
      RunConfig config = good();
      config.batch.global = global;
      config.batch.micro = micro;
      if (global % micro == 0) {
        EXPECT_NO_THROW(validate(config));
        continue;
      }
      std::int64_t below = 0;
      std::int64_t above = 0;
      for (std::int64_t divisor = 1; divisor <= global; ++divisor) {
        if (global % divisor == 0) {
          below = divisor < micro ? divisor : below;
          above = divisor > micro && above == 0 ? divisor : above;
        }
      }
      const std::string expected = "batch.micro " + std::to_string(below) +
                                   (above > 0 ? " or " + std::to_string(above) : "") + ", or";
      const std::string message = thrown_by([&] { validate(config); }).message;
      EXPECT_NE(message.find(expected), std::string::npos) << expected << " in " << message;
    }
  }
}

TEST(ValidateConfig, ChecksRangesOfConfigurationsMadeInCode) {
  const std::pair<const char*, std::function<void(RunConfig&)>> cases[] = {
      {"adapter.rank", [](RunConfig& c) { c.adapter.rank = 0; }},
      {"adapter.alpha", [](RunConfig& c) { c.adapter.alpha = std::nan(""); }},
      {"adapter.dropout", [](RunConfig& c) { c.adapter.dropout = 1.0; }},
      {"adapter.type", [](RunConfig& c) { c.adapter.type = "dora"; }},
      {"adapter.targets", [](RunConfig& c) { c.adapter.targets.clear(); }},
      {"adapter.rank_pattern", [](RunConfig& c) { c.adapter.rank_pattern["q"] = 0; }},
      {"model.share", [](RunConfig& c) { c.model.share = static_cast<Share>(9); }},
      {"optimizer.betas", [](RunConfig& c) { c.optimizer.beta1 = 1.0; }},
      {"optimizer.lr", [](RunConfig& c) { c.optimizer.lr = INFINITY; }},
      {"optimizer.clip_norm", [](RunConfig& c) { c.optimizer.clip_norm = -1; }},
      {"data.sequence_length", [](RunConfig& c) { c.data.sequence_length = 1; }},
      {"loss.label_smoothing", [](RunConfig& c) { c.loss.label_smoothing = 1; }},
      {"average.half_life", [](RunConfig& c) { c.average.half_life.value = 0; }},
      {"schedule.floor", [](RunConfig& c) { c.schedule.floor = 2; }},
      {"batch.global", [](RunConfig& c) { c.batch.global = 0; }},
      {"batch.micro", [](RunConfig& c) { c.batch.micro = 0; }},
      {"batch.reference", [](RunConfig& c) { c.batch.reference = 0; }},
      {"checkpoint.keep", [](RunConfig& c) { c.checkpoint.keep = 1; }},
      {"budget",
       [](RunConfig& c) {
         c.budget = {-1, Unit::kSteps};
       }},
      {"scale.rule", [](RunConfig& c) { c.scale.rule = static_cast<coordinator::ScaleRule>(9); }},
      {"run.output_dir", [](RunConfig& c) { c.run.output_dir = "\xFF"; }},
  };
  for (const auto& [path, change] : cases) {
    RunConfig config = good();
    change(config);
    const Thrown thrown = thrown_by([&] { validate(config); });
    EXPECT_EQ(thrown.code, 78);
    EXPECT_TRUE(thrown.message.starts_with(std::string(path) + ": ")) << thrown.message;
  }
}

TEST(ValidateConfig, SharesNoWeightsThatAreTrained) {
  RunConfig config = good();
  config.adapter.type = "full";
  for (const auto share : {Share::kAuto, Share::kNone}) {
    config.model.share = share;
    EXPECT_NO_THROW(validate(config));
  }
  config.model.share = Share::kNode;
  const Thrown thrown = thrown_by([&] { validate(config); });
  EXPECT_EQ(thrown.code, 78);
  expect_parts(thrown.message, {"model.share: node", "adapter.type full", "auto or none"});
  config.adapter.type = "lora";
  EXPECT_NO_THROW(validate(config));
}

TEST(ValidateConfig, ListsEveryProblem) {
  const RunConfig config = read("batch: {global: 16, micro: 5}");
  const Thrown thrown = thrown_by([&] { validate(config); }, 3);
  expect_parts(thrown.message,
               {"model.path is not set", "\ndata.train is not set", "\nbatch.micro 5 does not"});
}

TEST(ValidateConfig, AddsToWhatReadingFound) {
  Problems problems;
  const auto result =
      read_config_text("optimizer: {lr: x}\ndata: {trian: t.h5}\nbatch: {global: 16, micro: 5}\n",
                       "test.yaml", {}, problems);
  validate(result.config, Purpose::kTraining, problems);
  // A key that is misspelled is not missing as well; one that is nowhere, is.
  const Thrown thrown = thrown_by([&] { problems.throw_if_any(); }, 4);
  EXPECT_EQ(thrown.code, 78);
  expect_parts(thrown.message,
               {"test.yaml:1: optimizer.lr: 'x'",
                "\ntest.yaml:2: unknown key 'data.trian'; did you mean 'data.train'",
                "\nmodel.path is not set", "\nbatch.micro 5 does not divide"});
}

// A second line about values that the first one says are not those that were meant.
TEST(ValidateConfig, DrawsNoConclusionsFromABatchThatWasNotRead) {
  Problems problems;
  const auto result =
      read_config_text("model: {path: m}\ndata: {train: t.h5}\nbatch: {global: x, micro: 5}\n",
                       "test.yaml", {}, problems);
  validate(result.config, Purpose::kTraining, problems);
  expect_parts(thrown_by([&] { problems.throw_if_any(); }).message, {"test.yaml:3: batch.global"});
}

TEST(ValidateConfig, WarnsAboutSettingsWithoutEffect) {
  struct {
    std::vector<std::string> overrides;
    const char* key;
  } const cases[] = {
      {{"adapter.type=full", "adapter.rank=4"}, "adapter.rank 4"},
      {{"adapter.type=full", "adapter.dropout=0.1"}, "adapter.dropout 0.1"},
      {{"adapter.type=ia3", "adapter.rank=4"}, "adapter.rank 4"},
      {{"adapter.feedforward=[fc2]"}, "adapter.feedforward [fc2]"},
      {{"adapter.type=full", "adapter.rank_pattern={q: 4}"}, "adapter.rank_pattern {q: 4}"},
      {{"scale.power=0.7"}, "scale.power 0.7"},
      {{"optimizer.momentum=0.9"}, "optimizer.momentum 0.9"},
      {{"optimizer.name=sgd", "optimizer.betas=[0.9, 0.99]"}, "optimizer.betas"},
      {{"optimizer.name=sgd", "scale.betas=true"}, "scale.betas true"},
      {{"optimizer.name=lamb", "optimizer.momentum=0.9"}, "optimizer.momentum 0.9"},
      {{"optimizer.name=lars", "optimizer.eps=1e-6"}, "optimizer.eps "},
      {{"optimizer.name=lars", "scale.eps=true"}, "scale.eps true"},
      {{"optimizer.name=lamb", "optimizer.trust_coefficient=0.1"}, "trust_coefficient 0.1"},
      {{"optimizer.trust_ratio_lora_b=true"}, "trust_ratio_lora_b true"},
      {{"optimizer.name=lamb", "adapter.type=full", "optimizer.trust_ratio_lora_b=true"},
       "trust_ratio_lora_b true"},
      {{"average.half_life=100 steps"}, "average.half_life 100 steps"},
      {{"average.name=ema", "average.start=50%"}, "average.start 50%"},
      {{"average.name=swa", "average.half_life=9%"}, "average.half_life 9%"},
      {{"schedule.decay=20%"}, "schedule.decay 20%"},
      {{"schedule.name=constant", "schedule.floor=0.1"}, "schedule.floor 0.1"},
      {{"evaluate.every=7"}, "evaluate.every 7 steps"},
      {{"data.validation=v.h5", "evaluate.early_stop.min_delta=0.1"}, "min_delta 0.1"},
      {{"sample.temperature=0.7"}, "sample.temperature 0.7"},
      {{"sample.prompts=[a]", "sample.every=0"}, "sample.prompts [a]"},
      {{"sample.prompts=[a]", "sample.top_p=0.5"}, "sample.top_p 0.5"},
      {{"data.validation=t.h5"}, "data.validation is the training set"},
  };
  for (const auto& [overrides, key] : cases) {
    const auto warnings = validate(good_with(overrides));
    ASSERT_EQ(warnings.size(), 1U) << key;
    EXPECT_NE(warnings[0].find(key), std::string::npos) << warnings[0];
  }
  // In use, so nothing to say.
  EXPECT_TRUE(validate(good_with({"scale.rule=power", "scale.power=0.7", "optimizer.name=sgd",
                                  "optimizer.momentum=0.9", "schedule.name=wsd",
                                  "schedule.decay=20%", "schedule.floor=0.1"}))
                  .empty());
  EXPECT_TRUE(validate(good_with({"optimizer.name=lars", "optimizer.momentum=0.9",
                                  "optimizer.trust_coefficient=0.01", "average.name=swa",
                                  "average.start=50%"}))
                  .empty());
  EXPECT_TRUE(validate(good_with({"optimizer.name=lamb", "optimizer.trust_ratio_lora_b=true",
                                  "average.name=ema", "average.half_life=100 steps"}))
                  .empty());
  EXPECT_TRUE(validate(good_with({"adapter.rslora=true", "adapter.alpha_pattern={q: 4}"})).empty());
}

}  // namespace
}  // namespace lorascale::config
