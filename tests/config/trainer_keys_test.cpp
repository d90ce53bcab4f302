// Configurations in the style of those that other trainers publish, and each key's odd values.
#include "config/trainer_keys.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "config/options.hpp"
#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "config/validate.hpp"
#include "support.hpp"

namespace lorascale::config {
namespace {

const std::filesystem::path kPublished = LORASCALE_SOURCE_DIR "/tests/configs/published";

std::string text_of(const std::string& name) {
  std::ifstream file(kPublished / name);
  std::ostringstream text;
  text << file.rdbuf();
  std::string found = text.str();
  const std::string placeholder = "DATASET_DIR";
  if (const auto at = found.find(placeholder); at != std::string::npos) {
    found.replace(at, placeholder.size(), (kPublished / "data").string());
  }
  return found;
}

struct Said {
  ReadResult result;
  [[nodiscard]] bool of(const std::vector<std::string>& parts) const {
    return std::any_of(result.translations.begin(), result.translations.end(),
                       [&](const std::string& line) {
                         return std::all_of(parts.begin(), parts.end(), [&](const auto& part) {
                           return line.find(part) != std::string::npos;
                         });
                       });
  }
};

Said said(const std::string& text) {
  return {read_config_text(text, "test.yaml")};
}

void expect_same(const ReadResult& result, const std::string& own) {
  EXPECT_EQ(to_string(differences(read(own), result.config)), "");
  static_cast<void>(validate(result.config));
}

TEST(PublishedConfigs, AxolotlAlpaca) {
  const auto config = said(text_of("axolotl-alpaca.yml"));
  expect_same(config.result, R"(
run: {output_dir: ./outputs/lora-out}
model: {path: models/Llama-3.2-1B, recompute: true}
adapter:
  {rank: 16, alpha: 32, dropout: 0.05,
   targets: [gate_proj, down_proj, up_proj, q_proj, v_proj, k_proj, o_proj]}
data:
  train: [data/recipes.jsonl, data/more/one.jsonl, data/more/two.jsonl]
  sequence_length: 2048
  packing: true
  prepare: {validation_fraction: 0.1, cache: last_run_prepared}
batch: {global: 4, per_rank: 4, reference: 4, micro: 2}
optimizer: {lr: 2e-4}
schedule: {warmup: 10%}
budget: 4 epochs
checkpoint: {every: 1 epochs}
evaluate: {every: 0.25 epochs}
)");
  EXPECT_TRUE(config.of({"bf16 auto", "model.dtype auto"}));
  EXPECT_TRUE(config.of({"flash_attention true", "attention kernel"}));
  EXPECT_TRUE(config.of({"wandb_project", "wandb_log_model", "TensorBoard"}));  // one line for all
  EXPECT_TRUE(config.of({"val_set_size 0.1 → data.prepare.validation_fraction 0.1"}));
}

TEST(PublishedConfigs, AxolotlChat) {
  const auto config = said(text_of("axolotl-chat.yml"));
  expect_same(config.result, R"(
run: {output_dir: outputs/chat}
model: {path: models/Qwen2.5-0.5B-Instruct, dtype: bf16}
adapter: {rank: 8, alpha: 16, rslora: true, targets: all-linear}
data:
  train: data/support.parquet
  validation: data/support-held-out.parquet
  shuffle: false
  prepare: {columns: {messages: dialogue}}
batch: {global: 8, per_rank: 8, reference: 8, micro: 1}
optimizer: {lr: 1e-4}
schedule: {floor: 0.1, warmup: 10 steps}
budget: 300 steps
checkpoint: {every: 0 steps}
evaluate: {every: 10%, early_stop: {patience: 3}}
)");
  EXPECT_TRUE(config.of({"chat_template tokenizer_default", "the model's own"}));
  EXPECT_TRUE(config.of({"deepspeed", "launch/mpirun.sh"}));
}

TEST(PublishedConfigs, LlamaFactory) {
  const auto config = said(text_of("llama-factory-sft.yaml"));
  const auto data = (kPublished / "data").string();
  expect_same(config.result, R"(
run: {output_dir: saves/llama3-8b/lora/sft}
model: {path: models/Meta-Llama-3-8B-Instruct, dtype: bf16}
adapter: {rank: 8, targets: all-linear}
data:
  train: [")" + data + R"(/identity.json", ")" +
                                 data + R"(/talks.jsonl"]
  sequence_length: 2048
  prepare: {validation_fraction: 0.1, chat_template: own, max_records: 1000}
batch: {global: 8, per_rank: 8, reference: 8, micro: 1}
optimizer: {lr: 1e-4}
schedule: {warmup: 10%}
budget: 3 epochs
checkpoint: {every: 500 steps}
evaluate: {every: 500 steps}
)");
  EXPECT_TRUE(config.of({"stage sft → no effect"}));
  EXPECT_TRUE(config.of({"plot_loss true", "report.py"}));
  EXPECT_TRUE(config.of({"max_samples 1000", "data.prepare.max_records"}));
  EXPECT_TRUE(config.of({"template llama3", "the model's own template"}));
}

TEST(PublishedConfigs, Trl) {
  const auto config = said(text_of("trl-sft.yaml"));
  expect_same(config.result, R"(
run: {output_dir: runs/sft-lora, seed: 42}
model: {path: models/SmolLM2-135M, dtype: bf16, recompute: true}
adapter: {rank: 16, alpha: 16, dropout: 0.05, targets: all-linear}
data: {train: data/stories, sequence_length: 1024, packing: false, prepare: {columns: {text: story}}}
batch: {global: 8, per_rank: 8, reference: 8, micro: 4}
optimizer: {lr: 2e-4}
schedule: {warmup: 10%}
budget: 1 epochs
checkpoint: {every: 100 steps, keep: 2}
evaluate: {every: 1 epochs}
)");
  EXPECT_TRUE(config.of({"eval_steps 100", "not used: eval_strategy is epoch"}));
  EXPECT_TRUE(config.of({"max_steps -1", "no effect"}));
}

TEST(PublishedConfigs, Kohya) {
  const auto config = said(text_of("kohya.yaml"));
  EXPECT_EQ(config.result.config.adapter.rank, 32);
  EXPECT_EQ(config.result.config.model.dtype, "bf16");
  EXPECT_EQ(config.result.config.budget, (Amount{10, Unit::kEpochs}));
  EXPECT_TRUE(config.of({"bucket_no_upscale", "scripts/prepare_images.py"}));
}

// A part of the UNet's rate is the run's; the text encoder's is a part of it.
TEST(PublishedConfigs, KohyaOfPictures) {
  const auto config = said(text_of("kohya.yaml")).result.config;
  EXPECT_EQ(config.optimizer.lr, 1e-4);
  EXPECT_EQ(config.adapter.lr_pattern,
            (std::map<std::string, double>{{"text_encoder.*", 1e-5 / 1e-4}}));
  EXPECT_EQ(config.model.clip_skip, 2);
  EXPECT_EQ(config.data.caption.max_tokens, 225);
  EXPECT_FALSE(config.data.caption.shuffle);
  EXPECT_TRUE(config.data.cache.enabled);
}

TEST(TrainerKeys, RatesOfPartsAreTheRunsOrFactorsOfIt) {
  struct {
    const char* text;
    double rate;
    std::map<std::string, double> parts;
  } const cases[] = {
      {"unet_lr: 2e-4", 2e-4, {}},
      {"text_encoder_lr: 2e-4", 2e-4, {}},
      {"{unet_lr: 2e-4, text_encoder_lr: 5e-5}", 2e-4, {{"text_encoder.*", 5e-5 / 2e-4}}},
      {"{learning_rate: 1e-4, unet_lr: 1e-4, text_encoder_lr: 1e-4}", 1e-4, {}},
      {"{learning_rate: 1e-4, unet_lr: 2e-4}", 1e-4, {{R"(unet\..*)", 2e-4 / 1e-4}}},
      {"{learning_rate: 2e-4, unet_lr: 1e-4, text_encoder_lr: 0}",
       2e-4,
       {{R"(unet\..*)", 1e-4 / 2e-4}, {"text_encoder.*", 0}}},
      {"{learning_rate: 1e-4, unet_lr: null, text_encoder_lr: null}", 1e-4, {}},
  };
  for (const auto& [text, rate, parts] : cases) {
    const auto config = said(text).result.config;
    EXPECT_EQ(config.optimizer.lr, rate) << text;
    EXPECT_EQ(config.adapter.lr_pattern, parts) << text;
  }
}

TEST(TrainerKeys, AWordIsLearntAloneUnlessThereIsANetwork) {
  const std::string word = "{token_string: <toy>, init_word: cat, num_vectors_per_token: 4";
  const auto alone = said(word + ", use_object_template: false}").result.config.adapter;
  EXPECT_EQ(alone.type, "token");
  EXPECT_EQ(alone.token.word, "<toy>");
  EXPECT_EQ(alone.token.init, "cat");
  EXPECT_EQ(alone.token.vectors, 4);
  const auto both = said(word + ", network_module: networks.lora}").result.config.adapter;
  EXPECT_EQ(both.type, "lora");
  EXPECT_EQ(both.token.word, "<toy>");
  EXPECT_FALSE(said("token_string: ''").result.config.adapter.token.word.has_value());
}

TEST(TrainerKeys, OfPicturesSetWhatTheyMeanHere) {
  const auto config = said(R"(
v_parameterization: true
network_train_unet_only: true
shuffle_caption: true
keep_tokens: 2
caption_dropout_rate: 0.1
caption_tag_dropout_rate: 0.2
flip_aug: true
random_crop: true
min_snr_gamma: 5
noise_offset: 0.1
adaptive_noise_scale: 0.01
ip_noise_gamma: 0.05
prior_loss_weight: 0.5
debiased_estimation_loss: true
zero_terminal_snr: true
vae: other.safetensors
sample_sampler: k_euler_a
sample_prompts: [a cat, a dog --n blurry]
)")
                          .result.config;
  EXPECT_EQ(config.model.prediction, "v");
  ASSERT_EQ(config.adapter.targets.size(), 1U);
  EXPECT_TRUE(config.adapter.targets.front().starts_with(R"(unet\.)"));
  EXPECT_TRUE(config.data.caption.shuffle && config.data.augment.flip && config.data.augment.crop);
  EXPECT_EQ(config.data.caption.keep, 2);
  EXPECT_EQ(config.data.caption.dropout, 0.1);
  EXPECT_EQ(config.data.caption.tag_dropout, 0.2);
  EXPECT_EQ(config.loss.min_snr_gamma, 5);
  EXPECT_EQ(config.loss.noise_offset, 0.1);
  EXPECT_EQ(config.loss.noise_offset_adaptive, 0.01);
  EXPECT_EQ(config.loss.input_perturbation, 0.05);
  EXPECT_EQ(config.loss.prior_weight, 0.5);
  EXPECT_TRUE(config.loss.debiased && config.loss.zero_terminal_snr);
  EXPECT_EQ(config.model.vae, "other.safetensors");
  EXPECT_EQ(config.sample.sampler, "euler_a");
  EXPECT_EQ(config.sample.prompts, (std::vector<std::string>{"a cat", "a dog --n blurry"}));
}

TEST(TrainerKeys, NetworkArgumentsAreRanksOfConvolutionsAndKindsOfDropout) {
  const auto config = said(R"(
network_dim: 16
network_args: ["conv_dim=4", "conv_alpha=2", "rank_dropout=0.1", "module_dropout=0.2"]
scale_weight_norms: 1.5
)")
                          .result.config;
  EXPECT_EQ(config.adapter.rank, 16);
  EXPECT_EQ(config.adapter.rank_dropout, 0.1);
  EXPECT_EQ(config.adapter.module_dropout, 0.2);
  EXPECT_EQ(config.adapter.scale_weight_norms, 1.5);
  EXPECT_EQ(config.adapter.rank_pattern.at("conv2"), 4);
  EXPECT_EQ(config.adapter.alpha_pattern.at("upsamplers.0.conv"), 2);
  EXPECT_FALSE(config.adapter.rank_pattern.contains("conv_shortcut"));
  EXPECT_NE(std::ranges::find(config.adapter.targets, "conv_shortcut"),
            config.adapter.targets.end());
  EXPECT_EQ(read("network_args: []"), RunConfig{});
}

TEST(TrainerKeys, ColorsAreChangedInAnotherWayAndItIsSaid) {
  const auto config = said("color_aug: true");
  EXPECT_EQ(config.result.config.data.augment.color_jitter, 0.1);
  EXPECT_TRUE(config.of({"color_aug true", "data.augment.color_jitter 0.1", "not hue and gamma"}));
  EXPECT_EQ(read("color_aug: false"), RunConfig{});
}

TEST(TrainerKeys, PromptsMayStandInAFile) {
  const auto file = std::filesystem::path(testing::TempDir()) / "prompts.txt";
  std::ofstream(file) << "# for a look\r\na cat\r\n\n  \na dog --d 7\n";
  const auto config = said("sample_prompts: " + file.string()).result.config;
  EXPECT_EQ(config.sample.prompts, (std::vector<std::string>{"a cat", "a dog --d 7"}));
  std::filesystem::remove(file);
}

TEST(TrainerKeys, HaveOneMeaningEachAndTargetsThatExist) {
  std::set<std::string_view> names;
  for (const auto& alias : aliases()) {
    EXPECT_TRUE(names.insert(alias.name).second) << alias.name;
    EXPECT_FALSE(alias.name.empty());
    if (alias.meaning != AliasMeaning::kNoCounterpart && alias.meaning != AliasMeaning::kOnly &&
        alias.meaning != AliasMeaning::kSpecialTokens && alias.meaning != AliasMeaning::kRefused) {
      EXPECT_NE(find_option(alias.target), nullptr) << alias.name;
    }
  }
}

TEST(TrainerKeys, RefuseByNameAndWithTheRemedyWhatIsNotDone) {
  struct {
    const char* text;
    std::vector<std::string> parts;
  } const cases[] = {
      {"stage: dpo", {"stage", "'dpo' is not supported", "next tokens", "sft"}},
      {"stage: ppo", {"stage", "'ppo'"}},
      {"stage: rm", {"stage", "'rm'"}},
      {"stage: kto", {"stage", "'kto'"}},
      {"sample_sampler: lms", {"sample_sampler", "'lms' is not offered", "euler_a"}},
      {"sample_prompts: nowhere/prompts.txt", {"sample_prompts", "cannot be read"}},
      {"sample_prompts: prompts.toml", {"sample_prompts", ".txt"}},
      {"max_token_length: 50", {"max_token_length", "75"}},
      {"weighted_captions: true", {"weighted_captions", "not offered"}},
      {"multires_noise_iterations: 6", {"multires_noise_iterations", "loss.noise_offset"}},
      {"rl: dpo", {"rl", "preferences"}},
      {"pref_beta: 0.1", {"pref_beta", "preferences"}},
      {"trl:\n  beta: 0.1", {"trl", "preferences"}},
      {"optimizer: adamw_bnb_8bit", {"'adamw_bnb_8bit'", "not quantised", "write adamw"}},
      {"optim: paged_adamw_8bit", {"'paged_adamw_8bit'", "write adamw"}},
      {"optimizer_type: AdamW8bit", {"'AdamW8bit'", "write adamw"}},
      {"optim: adafactor", {"'adafactor' is not offered", "lamb"}},
      {"adapter: qlora", {"adapter", "'qlora'", "not quantised", "write lora"}},
      {"finetuning_type: freeze", {"'freeze'", "lora, ia3 or full"}},
      {"quantization_method: bnb", {"quantization_method", "model.dtype: bf16"}},
      {"gptq: true", {"gptq", "model.recompute"}},
      {"fp8: true", {"fp8", "model.dtype: bf16"}},
      {"lora_modules_to_save: [embed_tokens, lm_head]", {"lora_modules_to_save", "new tokens"}},
      {"tokens: ['<|a|>']", {"tokens", "new tokens"}},
      {"train_on_inputs: true", {"train_on_inputs", "data.prepare.learn"}},
      {"neftune_noise_alpha: 5", {"neftune_noise_alpha", "noise"}},
      {"push_to_hub: true", {"push_to_hub", "adapter/"}},
      {"val_set_size: 2000", {"val_set_size", "'2000'", "share", "data.validation"}},
      {"eval_steps: 1.5", {"eval_steps", "'1.5'"}},
      {"save_strategy: best", {"save_strategy", "'best' is not offered"}},
      {"packing: maybe", {"packing", "'maybe'", "auto"}},
      {"shuffle: auto", {"shuffle", "'auto' is neither true nor false"}},
      {"init_lora_weights: pissa", {"init_lora_weights", "'pissa'"}},
      {"optimizer_args: ['weight_decay=0.1']", {"optimizer_args", "settings of its own"}},
      {"datasets:\n  - path: a\n    type: pygmalion", {"datasets", "'pygmalion'", "columns"}},
      {"datasets:\n  - path: a\n    type: {format: '[INST] {instruction}'}", {"format"}},
      {"datasets:\n  - path: a\n    split: 'train[:5%]'", {"split", "save that part"}},
      {"datasets:\n  - path: a\n    message_property_mappings: {tool: t}", {"tool", "call it so"}},
      {"datasets:\n  - path: a\n    mystery: 1", {"'mystery'"}},
      {"datasets: []", {"datasets", "no set"}},
      {"datasets:\n  - {path: a, field_instruction: q}\n  - {path: b, field_instruction: r}",
       {"fields are called differently"}},
      {"test_datasets:\n  - {path: a}\n  - {path: b}", {"several sets"}},
      {"datasets:\n  - {path: a}\ntest_datasets:\n  - {path: b, field_instruction: q}",
       {"test_datasets", "otherwise than datasets"}},
      {"datasets:\n  - {path: a, roles_to_train: [assistant, user]}",
       {"roles_to_train: 'user'", "everything"}},
      {"datasets:\n  - {path: a, train_on_eos: all}", {"train_on_eos: 'all'"}},
      {"datasets:\n  - {path: a, roles: {user: [gpt], assistant: [human]}}",
       {"roles: 'gpt' for user"}},
      {"datasets:\n  - {path: a, roles: {assistant: [owl]}}", {"roles: 'owl' for assistant"}},
      {"network_args: ['algo=loha']", {"network_args", "'algo=loha'", "conv_dim"}},
      {"network_args: ['conv_dim']", {"network_args", "whole number"}},
      {"datasets:\n  - {path: a, train_on_eos: none}", {"train_on_eos: 'none'"}},
      {"datasets:\n  - {path: a, shards: 10}", {"shards: '10'", "the whole set"}},
      {"datasets:\n  - {path: a, chat_template: chatml}", {"chat_template: 'chatml'"}},
      {"datasets:\n  - {path: a, drop_system_message: true}",
       {"drop_system_message", "data.prepare.ignore"}},
      {"eos_token: <|end|>", {"eos_token", "--eos-token"}},
      {"dataset_train_split: test", {"dataset_train_split", "save that part"}},
      {"special_tokens: {pad_token: x, eos_token: y}",
       {"special_tokens", "'eos_token'", "--eos-token"}},
      {"dataset: alpaca_en_demo", {"'alpaca_en_demo' is no file", "data/dataset_info.json"}},
      {"chat_template_jinja: '{% for m in messages %}'", {"chat_template_jinja", ".jinja"}},
  };
  for (const auto& [text, parts] : cases) {
    const Thrown thrown = refusal(text);
    EXPECT_EQ(thrown.code, 78) << text;
    expect_parts(thrown.message, parts);
  }
}

TEST(TrainerKeys, TakeNoAndNoneForWhatIsNotDone) {
  for (const char* text : {"rl:", "rl: null", "gptq: false", "push_to_hub: no", "tokens: []",
                           "neftune_noise_alpha: none", "trl: {}", "lora_modules_to_save:"}) {
    EXPECT_EQ(read(text), RunConfig{}) << text;
  }
}

// Axolotl's examples leave them empty.
TEST(TrainerKeys, WithoutAValueAreLeftToTheDefault) {
  const auto config = said("early_stopping_patience:\nlora_alpha: null\neval_table_size:\n");
  EXPECT_TRUE(config.of({"early_stopping_patience without a value"}));
  EXPECT_EQ(config.result.config.adapter.alpha, RunConfig{}.adapter.alpha);
}

TEST(TrainerKeys, WhatTheyLeaveOpenIsTold) {
  const auto config = said("lora_r: 32\nlearning_rate: 1e-4\npacking: off\nbatch_size: 2\n");
  EXPECT_TRUE(config.of({"not set", "adapter.alpha 16", "schedule.name cosine"}));
  EXPECT_FALSE(config.of({"not set", "adapter.rank"}));
  EXPECT_FALSE(config.of({"not set", "batch.global"}));
  EXPECT_FALSE(said("adapter: {rank: 4}\n").of({"not set"}));
}

// One mistake is one line.
TEST(TrainerKeys, ASetThatIsRefusedIsNotMissingToo) {
  const Thrown thrown = refusal("datasets:\n  - {path: a, mystery: 1}");
  EXPECT_EQ(thrown.message.find("data.train is not set"), std::string::npos);
}

TEST(TrainerKeys, WordsForYesAndNoAreThoseOfYaml11) {
  for (const char* key : {"packing", "sample_packing"}) {
    const auto packing = [&](const std::string& word) {
      return read(std::string(key) + ": " + word).data.packing;
    };
    for (const char* word : {"off", "no", "false", "False", "OFF"}) {
      EXPECT_EQ(packing(word), false) << key << ": " << word;
    }
    for (const char* word : {"on", "yes", "true", "True"}) {
      EXPECT_EQ(packing(word), true) << key << ": " << word;
    }
    for (const char* word : {"", "null", "auto"}) {  // the lengths decide
      EXPECT_EQ(packing(word), std::nullopt) << key << ": " << word;
    }
  }
  EXPECT_FALSE(read("shuffle: off").data.shuffle);
}

TEST(TrainerKeys, PackingAutoIsTranslatedAndWrittenAgain) {
  EXPECT_TRUE(said("sample_packing: auto").of({"sample_packing auto → data.packing auto"}));
  for (const char* word : {"auto", "true", "false"}) {
    const auto config = read("data: {packing: " + std::string(word) + "}");
    EXPECT_EQ(read("packing: " + std::string(word)), config) << word;
    EXPECT_EQ(read(write_resolved(config)), config) << word;
  }
}

TEST(TrainerKeys, TypesOfWeightsAndOfArithmeticAreOneSetting) {
  EXPECT_EQ(read("torch_dtype: float16\nfp16: true").model.dtype, "fp16");
  EXPECT_EQ(read("bf16: true\nmixed_precision: bf16\nfull_bf16: true").model.dtype, "bf16");
  EXPECT_TRUE(said("dtype: bfloat16\nbf16: true").of({"bf16 true", "model.dtype bf16, as dtype"}));
  for (const char* open : {"auto", "null", ""}) {
    EXPECT_EQ(read("bf16: true\ntorch_dtype: " + std::string(open)).model.dtype, "bf16") << open;
    EXPECT_EQ(read("torch_dtype: " + std::string(open)), RunConfig{}) << open;
  }
  expect_parts(refusal("torch_dtype: float32\nbf16: true").message,
               {"bf16 and torch_dtype", "model.dtype", "keep one"});
}

TEST(TrainerKeys, CadencesFollowTheStrategyBesideThem) {
  EXPECT_EQ(read("eval_steps: 50").evaluate.every, (Amount{50, Unit::kSteps}));
  EXPECT_EQ(read("eval_strategy: steps\neval_steps: 50").evaluate.every,
            (Amount{50, Unit::kSteps}));
  EXPECT_EQ(read("evaluation_strategy: epoch\neval_steps: 50").evaluate.every,
            (Amount{1, Unit::kEpochs}));
  EXPECT_EQ(read("eval_strategy: no\neval_steps: 50").evaluate.every.value, 0);
  EXPECT_EQ(read("save_strategy: epoch").checkpoint.every, (Amount{1, Unit::kEpochs}));
  EXPECT_EQ(read("save_steps: 0.2").checkpoint.every, (Amount{0.2, Unit::kFraction}));
  EXPECT_EQ(read("saves_per_epoch: 4").checkpoint.every, (Amount{0.25, Unit::kEpochs}));
}

TEST(TrainerKeys, TheEpochsSayHowLongWhereStepsAreNegative) {
  EXPECT_EQ(read("max_steps: -1\nnum_train_epochs: 2").budget, (Amount{2, Unit::kEpochs}));
  EXPECT_EQ(read("max_steps: 0\nnum_train_epochs: 2").budget, (Amount{2, Unit::kEpochs}));
  EXPECT_EQ(read("max_steps: 20").budget, (Amount{20, Unit::kSteps}));
}

TEST(TrainerKeys, ChatTemplatesAreTheModelsOwnUnlessKnown) {
  EXPECT_EQ(read("template: qwen").data.prepare.chat_template, "own");
  EXPECT_EQ(read("template: default").data.prepare.chat_template, "auto");
  EXPECT_EQ(read("chat_template: chatml").data.prepare.chat_template, "chatml");
  EXPECT_EQ(read("chat_template: gemma3").data.prepare.chat_template, "auto");
  EXPECT_EQ(read("chat_template_path: a/b.jinja").data.prepare.chat_template, "a/b.jinja");
  EXPECT_EQ(read("mask_history: true").data.prepare.learn, "last");
}

TEST(TrainerKeys, NamesOfSetsAreLookedUp) {
  const std::string folder = "\ndataset_dir: " + (kPublished / "data").string() + "\n";
  const RunConfig config = read("dataset: questions" + folder);
  EXPECT_EQ(config.data.train, (kPublished / "data/questions.csv").string());
  EXPECT_EQ(config.data.prepare.columns,
            (std::map<std::string, std::string>{
                {"prompt", "question"}, {"input", "context"}, {"completion", "answer"}}));
  EXPECT_EQ(read("datasets:\n  - {path: a, type: chat_template, message_field_role: who}\n")
                .data.prepare.columns,
            (std::map<std::string, std::string>{{"role", "who"}}));
  EXPECT_EQ(read("dataset: [a.jsonl, b/c]").data.more_train, std::vector<std::string>{"b/c"});
  EXPECT_EQ(read("dataset: a.jsonl, b.csv").data.more_train, std::vector<std::string>{"b.csv"});
  EXPECT_EQ(read("eval_dataset: v.jsonl").data.validation, "v.jsonl");
  expect_parts(refusal("dataset: likes" + folder).message, {"'likes'", "preferences"});
  expect_parts(refusal("dataset: far_away" + folder).message, {"'far_away'", "hf download"});
  expect_parts(refusal("dataset: pictures" + folder).message, {"'images'", "only text"});
  expect_parts(refusal("dataset: missing" + folder).message, {"'missing'", "dataset_info.json"});
}

TEST(TrainerKeys, FilesOfASetAreThoseInItsFolder) {
  EXPECT_EQ(read("datasets:\n  - {path: owner/name, data_files: a.jsonl}").data.train,
            "owner/name/a.jsonl");
  EXPECT_EQ(read("datasets: data/a.jsonl").data.train, "data/a.jsonl");
}

}  // namespace
}  // namespace lorascale::config
