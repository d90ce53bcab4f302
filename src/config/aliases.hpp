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
  kPrecisionFlag,  // true: the type the key is named after
  kBeta,           // one of the two betas
  kTargets,        // a list, or names with commas between
  kAllTargets,     // true: all-linear
  kDataFolder,     // a folder with train.h5 in it, or an .h5 file
  kImagesOnly,     // concerns models of images
  kNoCounterpart,  // needs no setting here; `target` says why
  kOnly,  // one value is what is done here, every other is refused; `target` says what to do
};

struct Alias {
  std::string_view name;
  AliasMeaning meaning;
  std::string_view target;     // option path, or the reason of kNoCounterpart, or kOnly's remedy
  std::string_view only = {};  // kOnly: that value
};

std::span<const Alias> aliases();
const Alias* find_alias(std::string_view name);  // nullptr: unknown
bool is_alias_section(std::string_view name);    // "model_config", "training_config", ...

// The table as Markdown, for the documentation.
std::string describe_aliases();

}  // namespace lorascale::config
