#include "config/resolved.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.hpp"
#include "config/options.hpp"
#include "support.hpp"

namespace lorascale::config {
namespace {

RunConfig awkward() {
  RunConfig config;
  config.run.output_dir = "runs/with: colon # and \"quotes\" \\ gr\xC3\xBC\xC3\x9F";
  config.run.seed = ~std::uint64_t{0};
  config.model.path = "null";
  config.adapter.rank_pattern = {{".*\\.layers\\.[0-3]\\..*", 4}, {"true", 2}, {"a: b", 3}};
  config.adapter.alpha_pattern = {{"q_proj", 0.1 + 0.2}};
  config.data.validation = "null";
  config.optimizer.lr = 0.1 + 0.2;
  config.optimizer.beta2 = std::nextafter(1.0, 0.0);
  config.optimizer.eps = 5e-324;
  config.sample.prompts = {"two\nlines\t\x01", "- dash", "&x *y !z", "  spaces  ", "yes", "1e3"};
  config.checkpoint.every = {1.0 / 3, Unit::kMinutes};
  return config;
}

TEST(WriteResolved, RoundTripsExactly) {
  for (const RunConfig& config : {RunConfig{}, awkward()}) {
    const RunConfig again = read(write_resolved(config));
    EXPECT_EQ(to_string(differences(config, again)), "");
    EXPECT_EQ(again, config);
    EXPECT_EQ(write_resolved(again), write_resolved(config));
  }
  // Not through the table: members compared one by one.
  const RunConfig again = read(write_resolved(awkward()));
  EXPECT_EQ(again.run.output_dir, awkward().run.output_dir);
  EXPECT_EQ(again.optimizer.lr, awkward().optimizer.lr);
  EXPECT_EQ(again.optimizer.beta2, awkward().optimizer.beta2);
  EXPECT_EQ(again.adapter.rank_pattern, awkward().adapter.rank_pattern);
  EXPECT_EQ(again.adapter.alpha_pattern, awkward().adapter.alpha_pattern);
  EXPECT_EQ(again.sample.prompts, awkward().sample.prompts);
  EXPECT_EQ(again.checkpoint.every, awkward().checkpoint.every);
  EXPECT_EQ(again.data.validation, "null");
}

TEST(WriteResolved, KeepsEveryPercentage) {
  for (std::uint32_t i = 0; i < 5000; ++i) {
    const auto block = philox4x32({i, 0, 0, 0}, {3, 4});
    // Short decimals as users write them, and arbitrary ones.
    const std::string text =
        i % 2 == 0 ? std::to_string(block[0] % 100) + "." + std::to_string(block[1] % 1000)
                   : std::to_string(block[0] * 0x1p-32 * 99);
    const RunConfig config = read("schedule: {warmup: " + text + "%}");
    const RunConfig again = read(write_resolved(config));
    EXPECT_EQ(again.schedule.warmup, config.schedule.warmup) << text;
  }
  EXPECT_NE(write_resolved(read("schedule: {warmup: 7%}")).find("warmup: 7%\n"), std::string::npos);
}

TEST(WriteResolved, HoldsEveryKeyAndSaysWhatItIs) {
  const std::string text = write_resolved(RunConfig{});
  EXPECT_TRUE(text.starts_with("# Resolved configuration"));
  for (const auto& option : options()) {
    const std::string key = option.path.substr(option.path.rfind('.') + 1);
    EXPECT_NE(text.find(key + ": "), std::string::npos) << option.path;
  }
  EXPECT_NE(
      text.find(
          "\nevaluate:\n  every: 100 steps\n  max_samples: 0\n  early_stop:\n    patience: 0\n"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("\nbudget: 3 epochs\n"), std::string::npos);
}

TEST(WriteForRunFolder, LeavesOutTheFaultsOfARehearsal) {
  RunConfig config = read("", {"faults=['kill step=3 phase=backward']", "optimizer.lr=3e-4"});
  ASSERT_EQ(config.faults.size(), 1U);
  const RunConfig kept = read(write_for_run_folder(config));
  EXPECT_TRUE(kept.faults.empty());
  config.faults.clear();
  EXPECT_EQ(kept, config);
}

TEST(KeepFirstChoices, TheBatchOfTheFirstStartGoesOn) {
  const auto started = [](const char* text, int ranks) {
    ReadOptions options;
    options.world_size = ranks;
    return read_config_text(text, "test.yaml", options).config;
  };
  const char* flat = "batch_size: 2\ngradient_accumulation_steps: 2\n";
  const RunConfig saved = read(write_for_run_folder(started(flat, 2)));
  for (const int ranks : {1, 2, 3, 8}) {
    RunConfig now = started(flat, ranks);
    const auto lines = keep_first_choices(saved, now);
    EXPECT_EQ(now.batch.global, 8);
    EXPECT_EQ(now.batch.reference, 8);
    EXPECT_EQ(to_string(differences(saved, now, Scope::kFixedOnResume)), "");
    EXPECT_EQ(lines.size(), ranks == 2 ? 0U : 1U);
  }
  RunConfig other = started("batch_size: 4\ngradient_accumulation_steps: 2\n", 3);
  EXPECT_THROW(keep_first_choices(saved, other), Error);
  // Of a run that was begun before the batch per rank was kept.
  RunConfig older = saved;
  older.batch.per_rank.reset();
  RunConfig now = started(flat, 3);
  keep_first_choices(older, now);
  EXPECT_EQ(now.batch.global, 8);
  RunConfig written = read("batch: {global: 12}");
  EXPECT_TRUE(keep_first_choices(saved, written).empty());
  EXPECT_EQ(written.batch.global, 12);  // a batch that is written out is the user's
}

TEST(KeepFirstChoices, PackingAsItWasDecided) {
  const RunConfig saved = read("data: {packing: false}");
  RunConfig now;
  keep_first_choices(saved, now);
  EXPECT_EQ(now.data.packing, false);
  RunConfig written = read("data: {packing: true}");
  keep_first_choices(saved, written);
  EXPECT_EQ(written.data.packing, true);
}

TEST(ConfigDifferences, NamesKeysWithBothValues) {
  const RunConfig before;
  RunConfig after;
  after.optimizer.lr = 1e-3;
  after.data.packing = false;
  after.batch.micro = 4;
  const auto found = differences(before, after);
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].path, "data.packing");
  EXPECT_EQ(found[1].path, "batch.micro");
  EXPECT_EQ(found[1].first, "auto");
  EXPECT_EQ(found[1].second, "4");
  EXPECT_EQ(
      to_string(found),
      "data.packing: false was auto; batch.micro: 4 was auto; optimizer.lr: 0.001 was 2.0e-04");
  EXPECT_EQ(differences(before, after, Scope::kFixedOnResume).size(), 2U);
  EXPECT_FALSE(before == after);
}

TEST(FixedOnResume, TheRecipeAndNothingElse) {
  const auto changed = [](const char* setting) {
    return differences(RunConfig{}, read("", {setting}), Scope::kFixedOnResume).size();
  };
  for (const char* free :
       {"run.output_dir=x", "run.device=cpu", "run.threads=2", "run.deadline_seconds=5",
        "run.resume=never", "checkpoint.keep=9", "checkpoint.every=7", "evaluate.every=7",
        "sample.every=7", "sample.prompts=[a]", "sample.max_tokens=3", "budget=9 epochs",
        "batch.micro=2", "model.recompute=true", "model.path=x", "data.train=x",
        "data.validation=x"}) {
    EXPECT_EQ(changed(free), 0U) << free;
  }
  for (const char* fixed :
       {"run.seed=1", "model.dtype=bf16", "adapter.rank=4", "adapter.alpha=4",
        "adapter.targets=[x]", "adapter.rank_pattern={x: 4}", "data.shuffle=false",
        "data.sequence_length=64", "batch.global=4", "batch.reference=4", "optimizer.lr=1",
        "optimizer.betas=[0.9, 0.99]", "scale.rule=none", "schedule.warmup=5%"}) {
    EXPECT_GE(changed(fixed), 1U) << fixed;
  }
}

}  // namespace
}  // namespace lorascale::config
