// The keys that say what to train on: axolotl's list `datasets`, LLaMA-Factory's names `dataset`.
#pragma once

#include "config/trainer_keys.hpp"

namespace lorascale::config {

// A list of {path, type, data_files, field_..., ...}. Of sets to validate on `trained_on` is the
// list to train on, if there is one: fields are called alike in both.
Carried carry_datasets(const AliasUse& use, const YamlNode* trained_on);

// Paths, or names that dataset_info.json in `folder` (a path; nullptr: "data") explains.
Carried carry_dataset_names(const AliasUse& use, const YamlNode* folder);

}  // namespace lorascale::config
