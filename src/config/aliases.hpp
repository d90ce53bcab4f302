// The one table of keys that other trainers use ("lora-scripts" YAMLs, kohya, Hugging Face) and of
// what they mean here. They are taken at the top level of a file and below `model_config:`,
// `training_config:` and the like; everything translated is reported.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace lorascale::config {

enum class AliasMeaning {
  kSame,           // the value of `target` as it stands
  kSteps,          // a count of steps
  kEpochs,         // a count of epochs
  kShare,          // a fraction from 0 to 1, for an amount in %
  kBatchPerRank,   // a factor of the global batch, and the micro-batch
  kAccumulation,   // a factor of the global batch
  kOptimizer,      // a name of theirs
  kScheduler,      // a name of theirs
  kPrecision,      // "bf16", "fp16", "no"
  kPrecisionFlag,  // true: the type the key is named after, or `only`
  kBeta,           // one of the two betas
  kTargets,        // a list, or names with commas between
  kAllTargets,     // true: all-linear
  kDataFolder,     // a folder with train.h5 in it, or an .h5 file
  kNoCounterpart,  // needs no setting here; `target` says why
  kOnly,  // one value is what is done here, every other is refused; `target` says what to do
  // By trainer_keys.cpp:
  kSwitch,         // true or false, by more words than YAML 1.2 has
  kMaxSteps,       // steps; -1 or 0: none
  kStepsOrShare,   // steps, or below 1 a share of the run
  kStrategy,       // no, epoch, or as the steps beside it say
  kTimesPerEpoch,  // how often in an epoch
  kShareOfData,    // below 1; a number of documents is refused
  kTemplate,       // a name of theirs for the model's own template
  kChatTemplate,   // a name or file, or a name of theirs for the model's own
  kTuning,         // lora, full
  kLearnLast,      // true: the last answer
  kTextColumn,     // the column that holds the text
  kDatasets,       // axolotl's list of sets
  kSpecialTokens,  // a map; only what pads means nothing here, the rest is refused
  kDatasetNames,   // paths, or names of LLaMA-Factory's dataset_info.json
  kFlag,           // true: `only` is the value of `target`
  kUnetRate,       // of sd-scripts
  kTextEncoderRate,
  kSampler,
  kNewWord,           // of sd-scripts' textual inversion
  kNetworkArguments,  // of sd-scripts' networks.lora
  kPrompts,           // a file of them, a list, or one
  kCaptionLength,     // tokens: 75, 150 or 225, as many as fit
  kColors,            // true: colours are changed, by brightness, contrast and saturation
  kRefused,           // anything but no, none and empty is refused; `target` says what to do
};

struct Alias {
  std::string_view name;
  AliasMeaning meaning;
  std::string_view target;     // option path, or the reason of kNoCounterpart, or kOnly's remedy
  std::string_view only = {};  // kOnly, kFlag: that value; of kOnly several with '|' between
};

std::span<const Alias> aliases();
const Alias* find_alias(std::string_view name);  // nullptr: unknown
bool is_alias_section(std::string_view name);    // "model_config", "training_config", ...

// The table as Markdown, for the documentation.
std::string describe_aliases();

}  // namespace lorascale::config
