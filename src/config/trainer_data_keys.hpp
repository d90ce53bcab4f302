// The keys that say what to train on: axolotl's list `datasets`, LLaMA-Factory's names `dataset`.
#pragma once

#include "config/trainer_keys.hpp"

namespace lorascale::config {

// A list of {path, type, data_files, field_..., ...}.
Carried carry_datasets(const AliasUse& use);

// Paths, or names that dataset_info.json in `folder` (a path; nullptr: "data") explains.
Carried carry_dataset_names(const AliasUse& use, const YamlNode* folder);

}  // namespace lorascale::config
