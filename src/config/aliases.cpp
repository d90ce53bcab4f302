#include "config/aliases.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "config/trainer_keys.hpp"

namespace lorascale::config {
namespace {

using enum AliasMeaning;

constexpr std::array kSections = {"model_config",    "training_config", "data_config",
                                  "lora_config",     "dataset_config",  "output_config",
                                  "optimizer_config"};

constexpr std::string_view kNotQuantised =
    "base weights are not quantised; remove it, set model.dtype: bf16, and model.recompute: true "
    "if "
    "memory is short";

constexpr std::string_view kNoWholeModules =
    "new tokens and whole modules are not trained beside an adapter yet; remove it and use tokens "
    "that the model has, or train all weights with adapter.type: full";

constexpr auto kAliases = std::to_array<Alias>({
    // Model and adapter
    {"base_model", kSame, "model.path"},
    {"base_model_path", kSame, "model.path"},
    {"model_name_or_path", kSame, "model.path"},
    {"pretrained_model_name_or_path", kSame, "model.path"},
    {"mixed_precision", kPrecision, "model.dtype"},
    {"bf16", kPrecisionFlag, "model.dtype"},
    {"fp16", kPrecisionFlag, "model.dtype"},
    {"gradient_checkpointing", kSwitch, "model.recompute"},
    {"lora_rank", kSame, "adapter.rank"},
    {"lora_r", kSame, "adapter.rank"},
    {"network_dim", kSame, "adapter.rank"},
    {"lora_alpha", kSame, "adapter.alpha"},
    {"network_alpha", kSame, "adapter.alpha"},
    {"lora_dropout", kSame, "adapter.dropout"},
    {"network_dropout", kSame, "adapter.dropout"},
    {"target_modules", kTargets, "adapter.targets"},
    {"lora_target", kTargets, "adapter.targets"},
    {"lora_target_modules", kTargets, "adapter.targets"},
    {"lora_target_linear", kAllTargets, "adapter.targets"},
    {"network_module", kOnly, "the adapter is LoRA; remove it or write networks.lora",
     "networks.lora"},
    {"use_dora", kSwitch, "adapter.dora"},
    {"modules_to_save", kOnly, kNoWholeModules, "none"},
    {"lora_modules_to_save", kOnly, kNoWholeModules, "none"},
    {"additional_target", kOnly, kNoWholeModules, "none"},
    {"trainable_token_indices", kOnly, kNoWholeModules, "none"},
    {"load_in_4bit", kOnly, kNotQuantised, "false"},
    {"load_in_8bit", kOnly, kNotQuantised, "false"},
    {"quantization_bit", kOnly, kNotQuantised, "none"},
    {"use_rslora", kSame, "adapter.rslora"},
    {"loraplus_lr_ratio", kSame, "adapter.lr_ratio"},
    // Data
    {"train_data_dir", kDataFolder, "data.train"},
    {"train_file", kDataFolder, "data.train"},
    {"validation_file", kSame, "data.validation"},
    {"val_file", kSame, "data.validation"},
    {"max_seq_length", kSame, "data.sequence_length"},
    {"max_seq_len", kSame, "data.sequence_length"},
    {"max_length", kSame, "data.sequence_length"},
    {"sequence_len", kSame, "data.sequence_length"},
    {"cutoff_len", kSame, "data.sequence_length"},
    {"packing", kSwitch, "data.packing"},
    {"sample_packing", kSwitch, "data.packing"},
    {"shuffle", kSwitch, "data.shuffle"},
    // Batch, length, rate
    {"batch_size", kBatchPerRank, "batch.global"},
    {"train_batch_size", kBatchPerRank, "batch.global"},
    {"micro_batch_size", kBatchPerRank, "batch.global"},
    {"per_device_train_batch_size", kBatchPerRank, "batch.global"},
    {"gradient_accumulation_steps", kAccumulation, "batch.global"},
    {"epochs", kEpochs, "budget"},
    {"num_epochs", kEpochs, "budget"},
    {"num_train_epochs", kEpochs, "budget"},
    {"max_train_epochs", kEpochs, "budget"},
    {"max_steps", kMaxSteps, "budget"},
    {"max_train_steps", kMaxSteps, "budget"},
    {"learning_rate", kSame, "optimizer.lr"},
    {"optimizer", kOptimizer, "optimizer.name"},
    {"optimizer_type", kOptimizer, "optimizer.name"},
    {"optim", kOptimizer, "optimizer.name"},
    {"adam_beta1", kBeta, "optimizer.betas"},
    {"adam_beta2", kBeta, "optimizer.betas"},
    {"adam_epsilon", kSame, "optimizer.eps"},
    {"weight_decay", kSame, "optimizer.weight_decay"},
    {"max_grad_norm", kSame, "optimizer.clip_norm"},
    {"lr_scheduler", kScheduler, "schedule.name"},
    {"lr_scheduler_type", kScheduler, "schedule.name"},
    {"warmup_steps", kSteps, "schedule.warmup"},
    {"lr_warmup_steps", kSteps, "schedule.warmup"},
    {"num_warmup_steps", kSteps, "schedule.warmup"},
    {"warmup_ratio", kShare, "schedule.warmup"},
    {"lr_scheduler_num_cycles", kOnly, "the rate falls once and does not restart; remove it", "1"},
    // Run folder and cadences
    {"output_dir", kSame, "run.output_dir"},
    {"seed", kSame, "run.seed"},
    {"save_steps", kStepsOrShare, "checkpoint.every"},
    {"save_every_n_steps", kSteps, "checkpoint.every"},
    {"save_every_n_epochs", kEpochs, "checkpoint.every"},
    {"save_total_limit", kSame, "checkpoint.keep"},
    {"eval_steps", kStepsOrShare, "evaluate.every"},
    {"early_stopping_patience", kSame, "evaluate.early_stop.patience"},
    {"sample_every_n_steps", kSteps, "sample.every"},
    // Nothing to set
    {"logging_steps", kNoCounterpart, "every step is logged"},
    {"logging_dir", kNoCounterpart, "logs are in run.output_dir"},
    {"log_dir", kNoCounterpart, "logs are in run.output_dir"},
    {"report_to", kNoCounterpart, "TensorBoard and JSON lines are always written"},
    {"output_name", kNoCounterpart, "the adapter is written to run.output_dir/adapter"},
    {"num_workers", kNoCounterpart, "data is read ahead without worker processes"},
    {"dataloader_num_workers", kNoCounterpart, "data is read ahead without worker processes"},
    {"xformers", kNoCounterpart, "the attention kernel is chosen by the device"},
    {"save_precision", kNoCounterpart, "adapters are saved as they were trained"},
    {"save_model_as", kOnly, "adapters are saved as safetensors; remove it", "safetensors"},
});

// Values with '|' between, which would part a table's cells, as Markdown.
std::string values_text(std::string_view values) {
  std::string text = "`";
  for (const char c : values) {
    text += c == '|' ? std::string("` or `") : std::string(1, c);
  }
  return text + "`";
}

std::string meaning_text(const Alias& alias) {
  std::string target(1, '`');
  target.append(alias.target).append("`");
  switch (alias.meaning) {
    case kSame:
      return target;
    case kSteps:
      return target + ", in steps";
    case kEpochs:
      return target + ", in epochs";
    case kShare:
      return target + ", as a percentage";
    case kBatchPerRank:
      return "`batch.micro`, and a factor of `batch.global` and `batch.reference`";
    case kAccumulation:
      return "a factor of `batch.global` and `batch.reference`";
    case kOptimizer:
    case kScheduler:
    case kPrecision:
      return target + ", by its name here";
    case kPrecisionFlag:
      return "true: " + target + " of that type";
    case kBeta:
      return "one of " + target;
    case kTargets:
      return target + "; names may be separated by commas; `all` is `all-linear`";
    case kAllTargets:
      return "true: " + target + " `all-linear`";
    case kDataFolder:
      return target +
             ": the file or folder itself, or `train.h5` (and `validation.h5` or `val.h5`) in it";
    case kNoCounterpart:
      return "no effect: " + std::string(alias.target);
    case kOnly:
      return "not supported but for " + values_text(alias.only) + ": " + std::string(alias.target);
    case kSwitch:
      return target + "; `on`, `off`, `yes` and `no` are understood";
    case kMaxSteps:
      return target + ", in steps; -1 leaves it to the epochs";
    case kStepsOrShare:
      return target + ", in steps; below 1 a percentage";
    case kStrategy:
      return "`no` and `epoch`: " + target + " 0 and 1 epoch";
    case kTimesPerEpoch:
      return target + ", a part of an epoch";
    case kShareOfData:
      return target + "; a number of documents is refused";
    case kTemplate:
      return target + " `own`: the model's, for which the name stands";
    case kChatTemplate:
      return target + "; a name not known here is `auto`, the model's own";
    case kTuning:
      return target + "; `qlora` is refused";
    case kLearnLast:
      return "true: " + target + " `last`";
    case kTextColumn:
      return target + ", its `text`";
    case kDatasets:
      return target + ": the paths of the list; its `field_...` are `data.prepare.columns`";
    case kDatasetNames:
      return target + ": files, or names that `dataset_info.json` in `dataset_dir` explains";
    case kSpecialTokens:
      return "`pad_token` has no effect, for rows are not padded; others are not supported: " +
             std::string(alias.target);
    case kFlag:
      return "true: " + target + " `" + std::string(alias.only) + "`";
    case kUnetRate:
    case kTextEncoderRate:
      return "`optimizer.lr`, or beside `learning_rate` a part of it in `adapter.lr_pattern`";
    case kSampler:
      return target + ", by its name here";
    case kNewWord:
      return target +
             "; without a network module (`network_module`, `network_dim`) also "
             "`adapter.type` `token`";
    case kNetworkArguments:
      return "`conv_dim` and `conv_alpha`: convolutions beside the layers of " + target +
             ", with `adapter.rank_pattern` and `adapter.alpha_pattern`; `dropout`, `rank_dropout` "
             "and `module_dropout`: `adapter.` of that name";
    case kPrompts:
      return target + ": a list, a text file with a prompt on each line, or one prompt";
    case kCaptionLength:
      return target + ": 75, 150 or 225, the nearest below";
    case kColors:
      return "true: " + target + " `" + std::string(alias.only) +
             "`, which is brightness, contrast and saturation, not sd-scripts' hue and gamma";
    case kRefused:
      return "not supported: " + std::string(alias.target);
  }
  return "";
}

}  // namespace

std::span<const Alias> aliases() {
  static const std::vector<Alias> all = [] {
    std::vector<Alias> joined(kAliases.begin(), kAliases.end());
    joined.insert(joined.end(), trainer_keys().begin(), trainer_keys().end());
    return joined;
  }();
  return all;
}

const Alias* find_alias(std::string_view name) {
  const auto all = aliases();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Alias& alias) { return alias.name == name; });
  return found == all.end() ? nullptr : &*found;
}

bool is_alias_section(std::string_view name) {
  return std::find(kSections.begin(), kSections.end(), name) != kSections.end();
}

std::string describe_aliases() {
  std::string out = "| key | here |\n|---|---|\n";
  std::string names, meaning;
  const auto add_row = [&] {
    if (!names.empty()) {
      out += "| " + names + " | " + meaning + " |\n";
    }
  };
  for (const auto& alias : aliases()) {  // neighbours of one meaning share a row
    const std::string name = "`" + std::string(alias.name) + "`";
    if (auto text = meaning_text(alias); !names.empty() && text == meaning) {
      names += ", " + name;
    } else {
      add_row();
      names = name;
      meaning = std::move(text);
    }
  }
  add_row();
  return out;
}

}  // namespace lorascale::config
