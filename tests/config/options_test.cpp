#include "config/options.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "config/aliases.hpp"
#include "config/resolved.hpp"
#include "support.hpp"

namespace lorascale::config {
namespace {

TEST(ConfigOptions, AreDistinctAndDescribed) {
  std::set<std::string> paths;
  for (const auto& option : options()) {
    EXPECT_TRUE(paths.insert(option.path).second) << option.path;
    EXPECT_FALSE(option.form.empty()) << option.path;
    EXPECT_TRUE(option.help.ends_with(".")) << option.path;
    EXPECT_FALSE(is_section(option.path)) << option.path;
    EXPECT_EQ(find_option(option.path), &option);
  }
}

TEST(ConfigOptions, EveryDefaultIsAValueThatParses) {
  for (const auto& option : options()) {
    RunConfig config;
    EXPECT_NO_THROW(option.read(parse_yaml(default_text(option)), config)) << option.path;
    EXPECT_EQ(option.write(config), default_text(option)) << option.path;
  }
}

// A value other than the default for each key. A key without one fails the test, so a new option
// cannot be forgotten here; and no two keys may share a member.
const std::map<std::string, std::string>& other_values() {
  static const std::map<std::string, std::string> values = {
      {"run.output_dir", "runs/other"},
      {"run.seed", "18446744073709551615"},
      {"run.resume", "never"},
      {"run.device", "cpu"},
      {"run.threads", "3"},
      {"run.deadline_seconds", "5.5"},
      {"model.path", "models/base"},
      {"model.dtype", "bf16"},
      {"model.recompute", "true"},
      {"adapter.type", "full"},
      {"adapter.rank", "16"},
      {"adapter.alpha", "32"},
      {"adapter.dropout", "0.1"},
      {"adapter.rank_dropout", "0.2"},
      {"adapter.module_dropout", "0.3"},
      {"adapter.scale_weight_norms", "1.5"},
      {"adapter.token.word", "<hat>"},
      {"adapter.token.vectors", "2"},
      {"adapter.token.init", "a hat"},
      {"adapter.token.lr_ratio", "3"},
      {"adapter.rslora", "true"},
      {"adapter.dora", "true"},
      {"adapter.lr_ratio", "4"},
      {"adapter.targets", "[all-linear]"},
      {"adapter.feedforward", "[fc2]"},
      {"adapter.rank_pattern", "{q_proj: 4, \".*\\\\.v_proj\": 2}"},
      {"adapter.alpha_pattern", "{q_proj: 4.5}"},
      {"adapter.lr_pattern", "{q_proj: 0.5}"},
      {"adapter.init_from", "adapters/a"},
      {"data.augment.color_jitter", "0.1"},
      {"sample.strengths", "[0, 0.5, 1]"},
      {"data.train", "[train.jsonl, more.csv]"},
      {"data.validation", "validation.h5"},
      {"data.prepare.tokenizer", "bytes"},
      {"data.prepare.chat_template", "chatml"},
      {"data.prepare.chat_template_kwargs", "\"{}\""},
      {"data.prepare.default_system", "Be brief."},
      {"data.prepare.format", "jsonl"},
      {"data.prepare.text_split", "paragraph"},
      {"data.prepare.learn", "last"},
      {"data.prepare.columns", "{completion: answer, prompt: question}"},
      {"data.prepare.ignore", "[weight]"},
      {"data.prepare.max_length", "2048"},
      {"data.prepare.validation_fraction", "0.05"},
      {"data.prepare.deduplicate", "false"},
      {"data.prepare.skip_bad", "true"},
      {"data.prepare.cache", "prepared"},
      {"data.prepare.python", "/usr/bin/python3"},
      {"data.augment.flip", "true"},
      {"data.augment.shift", "2"},
      {"data.augment.crop", "true"},
      {"data.caption.shuffle", "true"},
      {"data.caption.keep", "1"},
      {"data.caption.dropout", "0.1"},
      {"data.caption.tag_dropout", "0.2"},
      {"data.caption.max_tokens", "150"},
      {"data.cache.enabled", "false"},
      {"data.cache.folder", "cached"},
      {"data.masked", "true"},
      {"model.part", "autoencoder"},
      {"model.vae", "models/vae"},
      {"model.prediction", "v"},
      {"model.clip_skip", "2"},
      {"model.tokenizer", "models/tokenizer"},
      {"loss.min_snr_gamma", "5"},
      {"loss.debiased", "true"},
      {"loss.scale_v_like_noise", "true"},
      {"loss.noise_offset", "0.05"},
      {"loss.noise_offset_adaptive", "0.1"},
      {"loss.input_perturbation", "0.1"},
      {"loss.zero_terminal_snr", "true"},
      {"loss.prior_weight", "0.5"},
      {"loss.kl", "1e-4"},
      {"sample.negative", "blurry"},
      {"sample.width", "768"},
      {"sample.height", "640"},
      {"sample.steps", "30"},
      {"sample.guidance", "5"},
      {"sample.sampler", "euler_a"},
      {"data.shuffle", "false"},
      {"model.share", "none"},
      {"model.architecture", "resnet"},
      {"model.resnet.block", "bottleneck"},
      {"model.resnet.layers", "[1, 1]"},
      {"model.resnet.width", "16"},
      {"model.resnet.norm", "group"},
      {"model.resnet.groups", "8"},
      {"model.resnet.ghost_batch", "4"},
      {"model.resnet.stem", "large"},
      {"data.sequence_length", "64"},
      {"data.packing", "false"},
      {"batch.global", "48"},
      {"batch.per_rank", "12"},
      {"batch.reference", "8"},
      {"batch.micro", "4"},
      {"batch.policy", "seesaw"},
      {"batch.increment", "2"},
      {"batch.min", "3"},
      {"batch.max", "96"},
      {"batch.min_steps", "50"},
      {"batch.dwell", "10 steps"},
      {"batch.ramp", "10%"},
      {"batch.critical", "120.5"},
      {"batch.critical_fraction", "0.5"},
      {"batch.on_resize", "rescale"},
      {"optimizer.name", "sgd"},
      {"optimizer.lr", "1e-3"},
      {"optimizer.betas", "[0.8, 0.95]"},
      {"optimizer.eps", "1e-6"},
      {"optimizer.weight_decay", "0.1"},
      {"optimizer.clip_norm", "0"},
      {"optimizer.momentum", "0.9"},
      {"optimizer.trust_coefficient", "0.02"},
      {"optimizer.trust_ratio_lora_b", "true"},
      {"loss.label_smoothing", "0.1"},
      {"average.name", "swa"},
      {"average.half_life", "2000 samples"},
      {"average.start", "50%"},
      {"scale.rule", "linear"},
      {"scale.power", "0.75"},
      {"scale.betas", "true"},
      {"scale.eps", "true"},
      {"scale.weight_decay", "true"},
      {"scale.ramp", "20 steps"},
      {"scale.cap", "true"},
      {"schedule.name", "wsd"},
      {"schedule.warmup", "100 steps"},
      {"schedule.decay", "20%"},
      {"schedule.floor", "0.1"},
      {"budget", "2M samples"},
      {"checkpoint.every", "10 min"},
      {"checkpoint.keep", "5"},
      {"evaluate.every", "1 epoch"},
      {"data.prepare.max_records", "1000"},
      {"data.prepare.turns", "apart"},
      {"evaluate.max_samples", "1000"},
      {"evaluate.early_stop.patience", "5"},
      {"evaluate.early_stop.min_delta", "0.01"},
      {"sample.every", "7"},
      {"sample.prompts", "[\"Once: upon\", \"a # time\"]"},
      {"sample.max_tokens", "16"},
      {"sample.temperature", "0.7"},
      {"sample.top_p", "0.9"},
      {"memory.budget_mib", "512"},
      {"advice", "false"},
      {"faults", "[oom step=1 phase=forward]"},
      {"run.reduction", "exact"},
      {"noise.horizon", "640 samples"},
      {"divergence.action", "recover"},
      {"divergence.max_recoveries", "3"},
      {"divergence.warmup", "100 samples"},
  };
  return values;
}

TEST(ConfigOptions, EachChangesItsOwnMemberAndNoOther) {
  const RunConfig defaults;
  for (const auto& option : options()) {
    ASSERT_TRUE(other_values().contains(option.path)) << option.path;
    const RunConfig changed = read("", {option.path + "=" + other_values().at(option.path)});
    const auto found = differences(defaults, changed);
    const bool two = option.path == "batch.per_rank";  // makes batch.global, before it in the table
    ASSERT_EQ(found.size(), two ? 2U : 1U) << option.path;
    EXPECT_EQ(found.back().path, option.path);
    EXPECT_EQ(read(write_resolved(changed)), changed) << option.path;
  }
  EXPECT_EQ(other_values().size(), options().size());
}

TEST(ConfigOptions, ReachTheMembersTheyAreNamedAfter) {
  std::vector<std::string> overrides;
  for (const auto& [path, value] : other_values()) {
    overrides.push_back(path + "=" + value);
  }
  const RunConfig config = read("", overrides);
  EXPECT_EQ(config.run.seed, 18446744073709551615ULL);
  EXPECT_EQ(config.run.deadline_seconds, 5.5);
  EXPECT_EQ(config.model.path, "models/base");
  EXPECT_TRUE(config.model.recompute);
  EXPECT_EQ(config.adapter.alpha, 32.0);
  EXPECT_EQ(config.adapter.targets, std::vector<std::string>{"all-linear"});
  EXPECT_EQ(config.adapter.rank_pattern,
            (std::map<std::string, std::int64_t>{{"q_proj", 4}, {".*\\.v_proj", 2}}));
  EXPECT_EQ(config.adapter.alpha_pattern, (std::map<std::string, double>{{"q_proj", 4.5}}));
  EXPECT_EQ(config.adapter.init_from, "adapters/a");
  EXPECT_EQ(config.data.validation, "validation.h5");
  EXPECT_EQ(config.batch.global, 48);
  EXPECT_EQ(config.batch.reference, 8);
  EXPECT_EQ(config.batch.micro, 4);
  EXPECT_EQ(config.optimizer.beta1, 0.8);
  EXPECT_EQ(config.optimizer.beta2, 0.95);
  EXPECT_EQ(config.optimizer.momentum, 0.9);
  EXPECT_EQ(config.optimizer.trust_coefficient, 0.02);
  EXPECT_EQ(config.loss.label_smoothing, 0.1);
  EXPECT_EQ(config.average.half_life, (Amount{2000, Unit::kSamples}));
  EXPECT_EQ(config.average.start, (Amount{0.5, Unit::kFraction}));
  EXPECT_EQ(config.scale.rule, coordinator::ScaleRule::kLinear);
  EXPECT_EQ(config.schedule.name, coordinator::ScheduleKind::kWsd);
  EXPECT_EQ(config.schedule.warmup, (Amount{100, Unit::kSteps}));
  EXPECT_EQ(config.budget, (Amount{2e6, Unit::kSamples}));
  EXPECT_EQ(config.checkpoint.every, (Amount{10, Unit::kMinutes}));
  EXPECT_EQ(config.evaluate.every, (Amount{1, Unit::kEpochs}));
  EXPECT_EQ(config.evaluate.early_stop.patience, 5);
  EXPECT_EQ(config.sample.every, (Amount{7, Unit::kSteps}));
  EXPECT_EQ(config.sample.prompts, (std::vector<std::string>{"Once: upon", "a # time"}));
}

TEST(DescribeOptions, NamesEveryKeyWithItsDefault) {
  const std::string plain = describe_options();
  const std::string markdown = describe_options(ReferenceFormat::kMarkdown);
  for (const auto& option : options()) {
    EXPECT_NE(plain.find("  " + option.path + "  (" + option.form), std::string::npos);
    EXPECT_NE(markdown.find("| `" + option.path + "` | "), std::string::npos);
  }
  std::size_t begin = 0;
  for (std::size_t end = plain.find('\n'); end != std::string::npos;
       end = plain.find('\n', begin)) {
    const std::string line = plain.substr(begin, end - begin);
    EXPECT_TRUE(line.size() <= 100 || !line.starts_with("      ")) << line;
    begin = end + 1;
  }
}

TEST(ConfigAliases, PointAtOptionsThatExistAndHideNone) {
  std::set<std::string_view> names;
  for (const auto& alias : aliases()) {
    EXPECT_TRUE(names.insert(alias.name).second) << alias.name;
    EXPECT_EQ(find_option(alias.name), nullptr) << alias.name;
    const bool points =
        alias.meaning != AliasMeaning::kNoCounterpart && alias.meaning != AliasMeaning::kOnly &&
        alias.meaning != AliasMeaning::kSpecialTokens && alias.meaning != AliasMeaning::kRefused;
    if (alias.meaning == AliasMeaning::kPrecisionFlag) {  // the type, where the key is not it
      const auto& type = alias.only.empty() ? alias.name : alias.only;
      EXPECT_TRUE(type == "bf16" || type == "fp16") << alias.name;
    } else {
      const bool has_value = alias.meaning == AliasMeaning::kOnly ||
                             alias.meaning == AliasMeaning::kFlag ||
                             alias.meaning == AliasMeaning::kColors;
      EXPECT_EQ(!alias.only.empty(), has_value) << alias.name;
    }
    EXPECT_EQ(find_option(alias.target) != nullptr, points) << alias.name;
    EXPECT_NE(describe_aliases().find("`" + std::string(alias.name) + "`"), std::string::npos);
  }
}

// What belongs to one kind of workload is named to the others where it is set.
TEST(ConfigOptions, KnowTheKindOfWorkloadThatTheyBelongTo) {
  RunConfig config;
  EXPECT_TRUE(idle_options(config, "vision").empty());
  config.data.sequence_length = 64;
  config.data.augment.shift = 2;
  config.optimizer.lr = 0.5;  // of all kinds
  ASSERT_EQ(idle_options(config, "vision").size(), 1U);
  EXPECT_EQ(idle_options(config, "vision")[0],
            "data.sequence_length 64 has no effect: it is of language models");
  ASSERT_EQ(idle_options(config, "language").size(), 1U);
  EXPECT_EQ(idle_options(config, "language")[0],
            "data.augment.shift 2 has no effect: it is of vision models");
  RunConfig shared;
  shared.data.augment.flip = true;
  EXPECT_TRUE(idle_options(shared, "vision").empty());
  EXPECT_TRUE(idle_options(shared, "diffusion").empty());
  ASSERT_EQ(idle_options(shared, "language").size(), 1U);
  EXPECT_EQ(idle_options(shared, "language")[0],
            "data.augment.flip true has no effect: it is of vision and diffusion models");
}

TEST(ConfigOptions, OfAFreshNetworkDoNothingBesideATrainedOne) {
  RunConfig config;
  config.model.path = "runs/a/model";
  config.model.resnet.norm = "group";
  ASSERT_EQ(idle_options(config, "vision").size(), 1U);
  EXPECT_EQ(
      idle_options(config, "vision")[0],
      "model.resnet.norm group has no effect: the form of runs/a/model is in its config.json");
  EXPECT_EQ(idle_options(config, "language").size(), 1U);
  config.model.path.clear();
  config.model.architecture = "resnet";
  EXPECT_TRUE(idle_options(config, "vision").empty());
}

}  // namespace
}  // namespace lorascale::config
