#include "config/trainer_keys.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <span>

#include "base/error.hpp"
#include "config/trainer_data_keys.hpp"
#include "config/trainer_picture_keys.hpp"
#include "config/value_kinds.hpp"

namespace lorascale::config {
namespace {

using Settings = std::vector<std::pair<std::string, YamlNode>>;

// Templates that have the same name there and here. Others stand for that of the model they name.
constexpr std::array<std::string_view, 3> kSameTemplates = {"chatml", "llama3", "llama2"};

Carried set(const AliasUse& use, const std::string& text) {
  return {{{std::string(use.alias->target), YamlNode::scalar(text, use.line)}}, ""};
}

Carried nothing(const std::string& why) {
  return {{}, why};
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

bool is_off(const YamlNode& value) {
  static constexpr std::array<std::string_view, 6> kOff = {"",      "none", "null",
                                                           "false", "no",   "off"};
  switch (value.kind) {
    case YamlNode::Kind::kNull:
      return true;
    case YamlNode::Kind::kScalar:
      return std::find(kOff.begin(), kOff.end(), lower(value.text)) != kOff.end();
    case YamlNode::Kind::kSequence:
      return value.items.empty();
    case YamlNode::Kind::kMap:
      return value.entries.empty();
  }
  return false;
}

// YAML 1.1, which these trainers read, has more words for yes and no.
Carried carry_switch(const AliasUse& use) {
  if (use.value->kind == YamlNode::Kind::kNull) {
    return nothing("no effect");
  }
  const std::string word = lower(scalar_text(*use.value, "true or false"));
  if (word == "true" || word == "yes" || word == "on") {
    return set(use, "true");
  }
  if (word == "false" || word == "no" || word == "off") {
    return set(use, "false");
  }
  const bool has_auto = use.alias->target == "data.packing";
  if (has_auto && word == "auto") {
    return set(use, "auto");
  }
  throw ValueError(in_quotes(use.value->text) + " is " +
                   (has_auto ? "none of true, false and auto" : "neither true nor false"));
}

double number_in(const YamlNode& value, double low, double high) {
  double number = 0;
  RealKind{low, false, high, false}.read(value, number);
  return number;
}

Carried carry_max_steps(const AliasUse& use) {
  if (use.value->kind == YamlNode::Kind::kNull) {
    return nothing("no effect");
  }
  std::int64_t steps = 0;
  IntegerKind{-1, 1000000000}.read(*use.value, steps);
  return steps > 0 ? set(use, std::to_string(steps) + " steps")
                   : nothing("no effect: the epochs say how long");
}

// The strategy that goes with "eval_steps" or "save_steps", where the file has one.
std::string strategy_beside(const AliasUse& use, const Sibling& sibling) {
  static constexpr std::array<std::string_view, 1> kSave = {"save_strategy"};
  static constexpr std::array<std::string_view, 2> kEvaluate = {"eval_strategy",
                                                                "evaluation_strategy"};
  const bool saves = use.alias->name.starts_with("save");
  for (const auto name : saves ? std::span<const std::string_view>(kSave) : kEvaluate) {
    const YamlNode* value = sibling(name);
    if (value != nullptr && value->kind == YamlNode::Kind::kScalar) {
      const std::string word = lower(value->text);
      if (word != "steps") {
        return fmt::format("{} is {}", name, value->text);
      }
    }
  }
  return {};
}

Carried carry_steps_or_share(const AliasUse& use, const Sibling& sibling) {
  if (use.value->kind == YamlNode::Kind::kNull) {
    return nothing("no effect");
  }
  if (const auto why = strategy_beside(use, sibling); !why.empty()) {
    return nothing("not used: " + why);
  }
  const double steps = number_in(*use.value, 0, 1e9);
  if (steps > 0 && steps < 1) {
    return set(use, AmountKind::write({steps, Unit::kFraction}));
  }
  if (steps != std::floor(steps)) {
    throw ValueError(in_quotes(use.value->text) +
                     " is neither a whole number of steps nor a share below 1");
  }
  return set(use, std::to_string(static_cast<std::int64_t>(steps)) + " steps");
}

Carried carry_strategy(const AliasUse& use) {
  const std::string word =
      is_off(*use.value) ? "no" : lower(scalar_text(*use.value, "no, steps or epoch"));
  if (word == "no") {
    return set(use, "0 steps");
  }
  if (word == "epoch") {
    return set(use, "1 epochs");
  }
  if (word == "steps") {
    return nothing("no effect: the steps say how often");
  }
  throw ValueError(in_quotes(word) + " is not offered; write no, steps or epoch");
}

Carried carry_times_per_epoch(const AliasUse& use) {
  if (is_off(*use.value)) {
    return nothing("no effect");
  }
  const double times = number_in(*use.value, 0, 1e6);
  return times == 0 ? set(use, "0 steps") : set(use, real_text(1 / times) + " epochs");
}

Carried carry_share_of_data(const AliasUse& use) {
  if (is_off(*use.value)) {
    return nothing("no effect");
  }
  const double share = number_in(*use.value, 0, 1e12);
  if (share >= 1) {
    throw ValueError(in_quotes(use.value->text) +
                     " is a number of documents; write their share, as in 0.05, or name a "
                     "validation set in data.validation");
  }
  return share == 0 ? nothing("no effect") : set(use, real_text(share));
}

// The model's own template, for which their names stand; `value` is how that is written here.
Carried carry_own_template(const AliasUse& use, const std::string& value) {
  Carried carried = set(use, value);
  carried.outcome = fmt::format(
      "{} {}: the model's own template is taken, not one of the name {}; "
      "data.prepare.chat_template names another",
      use.alias->target, value, in_quotes(use.value->text));
  return carried;
}

Carried carry_template(const AliasUse& use) {
  if (is_off(*use.value)) {
    return nothing("no effect");
  }
  const std::string& name = scalar_text(*use.value, "a name");
  if (name == "default" || name == "empty" || name == "alpaca") {
    return nothing("no effect: answers are learnt as plain text, unless the data are chats");
  }
  return carry_own_template(use, "own");  // there it also holds for questions and answers
}

Carried carry_chat_template(const AliasUse& use) {
  if (is_off(*use.value)) {
    return nothing("no effect");
  }
  const std::string& name = scalar_text(*use.value, "a name");
  if (std::find(kSameTemplates.begin(), kSameTemplates.end(), name) != kSameTemplates.end() ||
      name.ends_with(".jinja")) {
    return set(use, name);
  }
  if (name.find("{%") != std::string::npos || name.find("{{") != std::string::npos) {
    throw ValueError(
        "is a template itself; write it into a file that ends in .jinja, and name that");
  }
  return carry_own_template(use, "auto");
}

Carried carry_tuning(const AliasUse& use) {
  if (is_off(*use.value)) {
    return nothing("no effect");
  }
  const std::string word = lower(scalar_text(*use.value, "lora, ia3 or full"));
  if (word == "lora" || word == "ia3" || word == "full") {
    return set(use, word);
  }
  throw ValueError(in_quotes(word) + " is not offered: " +
                   (word == "qlora" ? "base weights are not quantised; write lora, and "
                                      "model.recompute: true if memory is short"
                                    : "write lora, ia3 or full"));
}

Carried carry_flag(const AliasUse& use) {
  return is_off(*use.value) ? nothing("no effect") : set(use, std::string(use.alias->only));
}

Carried carry_colors(const AliasUse& use) {
  Carried carried = carry_flag(use);
  if (!carried.settings.empty()) {
    carried.outcome =
        fmt::format("{} {}: brightness, contrast and saturation, not hue and gamma as there",
                    use.alias->target, use.alias->only);
  }
  return carried;
}

Carried carry_learn_last(const AliasUse& use) {
  return is_off(*use.value) ? nothing("no effect") : set(use, "last");
}

Carried carry_text_column(const AliasUse& use) {
  if (is_off(*use.value)) {
    return nothing("no effect");
  }
  const std::string& name = scalar_text(*use.value, "a name");
  if (name == "text") {
    return nothing("no effect: it is called so here, too");
  }
  YamlNode columns;
  columns.kind = YamlNode::Kind::kMap;
  columns.line = use.line;
  columns.entries.push_back({"text", use.line, YamlNode::scalar(name, use.line)});
  return {{{std::string(use.alias->target), columns}}, ""};
}

Carried carry_refused(const AliasUse& use) {
  if (is_off(*use.value)) {
    return nothing("no effect");
  }
  throw ValueError("is not supported: " + std::string(use.alias->target));
}

// Rows are not padded, and no text holds unknown bytes.
Carried carry_special_tokens(const AliasUse& use) {
  if (is_off(*use.value)) {
    return nothing("no effect");
  }
  for (const auto& entry : use.value->entries) {
    if (entry.key != "pad_token" && entry.key != "unk_token" && !is_off(entry.value)) {
      throw ValueError(
          fmt::format("{} is not supported: {}", in_quotes(entry.key), use.alias->target));
    }
  }
  return nothing("no effect: rows are not padded");
}

}  // namespace

Carried carry_over(const AliasUse& use, const Sibling& sibling) {
  switch (use.alias->meaning) {
    case AliasMeaning::kSwitch:
      return carry_switch(use);
    case AliasMeaning::kMaxSteps:
      return carry_max_steps(use);
    case AliasMeaning::kStepsOrShare:
      return carry_steps_or_share(use, sibling);
    case AliasMeaning::kStrategy:
      return carry_strategy(use);
    case AliasMeaning::kTimesPerEpoch:
      return carry_times_per_epoch(use);
    case AliasMeaning::kShareOfData:
      return carry_share_of_data(use);
    case AliasMeaning::kTemplate:
      return carry_template(use);
    case AliasMeaning::kChatTemplate:
      return carry_chat_template(use);
    case AliasMeaning::kTuning:
      return carry_tuning(use);
    case AliasMeaning::kLearnLast:
      return carry_learn_last(use);
    case AliasMeaning::kTextColumn:
      return carry_text_column(use);
    case AliasMeaning::kDatasets:
      return carry_datasets(use, sibling("datasets"));
    case AliasMeaning::kDatasetNames:
      return carry_dataset_names(use, sibling("dataset_dir"));
    case AliasMeaning::kSpecialTokens:
      return carry_special_tokens(use);
    case AliasMeaning::kFlag:
      return carry_flag(use);
    case AliasMeaning::kUnetRate:
      return carry_unet_rate(use, sibling);
    case AliasMeaning::kTextEncoderRate:
      return carry_text_encoder_rate(use, sibling);
    case AliasMeaning::kSampler:
      return carry_sampler(use);
    case AliasMeaning::kNewWord:
      return carry_new_word(use, sibling);
    case AliasMeaning::kNetworkArguments:
      return carry_network_arguments(use);
    case AliasMeaning::kPrompts:
      return carry_prompts(use);
    case AliasMeaning::kCaptionLength:
      return carry_caption_length(use);
    case AliasMeaning::kColors:
      return carry_colors(use);
    case AliasMeaning::kRefused:
      return carry_refused(use);
    default:
      break;
  }
  LS_ASSERT(false);
  return {};
}

}  // namespace lorascale::config
