// Keys of kohya's sd-scripts and lora-scripts whose values mean something of their own here.
#pragma once

#include <string>
#include <vector>

#include "config/trainer_keys.hpp"

namespace lorascale::config {

// What sd-scripts adapts of UNet and text encoders, by the ends of the layers' names.
const std::vector<std::string>& picture_targets();

// unet_lr and text_encoder_lr: the run's rate, or parts of it (adapter.lr_pattern).
Carried carry_unet_rate(const AliasUse& use, const Sibling& sibling);
Carried carry_text_encoder_rate(const AliasUse& use, const Sibling& sibling);
// A sampler by sd-scripts' names.
Carried carry_sampler(const AliasUse& use);
// Tokens of a caption, in rows of 75; WebUIs of lora-scripts write 255.
Carried carry_caption_length(const AliasUse& use);
// token_string: alone, unless a network is trained beside it.
Carried carry_new_word(const AliasUse& use, const Sibling& sibling);
// network_args: LoRA on convolutions (conv_dim, conv_alpha) and kinds of dropout.
Carried carry_network_arguments(const AliasUse& use);
// A text file with a prompt on each line, a list of prompts, or one.
Carried carry_prompts(const AliasUse& use);

}  // namespace lorascale::config
