#include "config/alias_translation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "base/units.hpp"
#include "config/run_config.hpp"
#include "config/text.hpp"
#include "config/trainer_keys.hpp"
#include "config/value_kinds.hpp"

namespace lorascale::config {
namespace {

struct ValueName {
  std::string_view theirs, ours;
};

// Fused forms differ in speed only.
constexpr std::array kOptimizers = {ValueName{"adamw", "adamw"},
                                    ValueName{"adamw_torch", "adamw"},
                                    ValueName{"adamw_torch_fused", "adamw"},
                                    ValueName{"adamw_hf", "adamw"},
                                    ValueName{"adamw_apex_fused", "adamw"},
                                    ValueName{"paged_adamw_32bit", "adamw"},
                                    ValueName{"sgd", "sgd"},
                                    ValueName{"lamb", "lamb"},
                                    ValueName{"lars", "lars"}};
// "cosine_with_restarts" has one cycle unless told otherwise, which is a cosine.
constexpr std::array kSchedulers = {ValueName{"constant", "constant"},
                                    ValueName{"constant_with_warmup", "constant"},
                                    ValueName{"linear", "linear"},
                                    ValueName{"cosine", "cosine"},
                                    ValueName{"cosine_with_restarts", "cosine"},
                                    ValueName{"wsd", "wsd"},
                                    ValueName{"warmup_stable_decay", "wsd"}};
constexpr std::array kPrecisions = {ValueName{"bf16", "bf16"},     ValueName{"fp16", "fp16"},
                                    ValueName{"fp32", "fp32"},     ValueName{"no", "fp32"},
                                    ValueName{"bfloat16", "bf16"}, ValueName{"float16", "fp16"},
                                    ValueName{"float32", "fp32"},  ValueName{"auto", "auto"}};

template <std::size_t N>
std::string our_name(const std::array<ValueName, N>& names, const std::string& theirs) {
  std::string lower = theirs;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  std::string offered;
  for (const auto& name : names) {
    if (name.theirs == lower) {
      return std::string(name.ours);
    }
    offered += (offered.empty() ? "" : ", ") + std::string(name.theirs);
  }
  if (lower.find("8bit") != std::string::npos || lower.find("4bit") != std::string::npos) {
    throw ValueError(in_quotes(theirs) +
                     " is not offered: optimizer state is not quantised, and that of an adapter is "
                     "small; write adamw");
  }
  throw ValueError(in_quotes(theirs) + " is not offered; write one of " + offered);
}

// A value in one line of the report.
std::string shown(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "null";
    case YamlNode::Kind::kMap:
      return "{...}";
    case YamlNode::Kind::kScalar: {
      const std::string text = in_quotes(node.text);
      return text.find('\\') == std::string::npos ? text.substr(1, text.size() - 2) : text;
    }
    case YamlNode::Kind::kSequence:
      break;
  }
  std::string list;
  for (const auto& item : node.items) {
    list += (list.empty() ? "" : ", ") + shown(item);
  }
  return "[" + list + "]";
}

// How people write that a setting is not there.
bool is_none(const std::string& text) {
  return text == "none" || text == "None" || text == "null";
}

// YAML 1.1's words for yes and no as those of 1.2.
std::string plain_word(const std::string& text) {
  if (text == "no" || text == "off" || text == "False") {
    return "false";
  }
  return text == "yes" || text == "on" || text == "True" ? "true" : text;
}

std::int64_t count_in(const YamlNode& node, std::int64_t low) {
  constexpr std::int64_t kHighest = 1000000;  // keeps the product of three counts below 2^63
  std::int64_t count = 0;
  IntegerKind{low, kHighest}.read(node, count);
  return count;
}

std::vector<YamlNode> names_between_commas(std::string_view text, int line) {
  std::vector<YamlNode> names;
  for (bool more = true; more;) {
    const std::size_t comma = text.find(',');
    std::string_view name = text.substr(0, comma);
    name.remove_prefix(std::min(name.find_first_not_of(' '), name.size()));
    name = name.substr(0, name.find_last_not_of(' ') + 1);
    names.push_back(YamlNode::scalar(std::string(name), line));
    more = comma != std::string_view::npos;
    text.remove_prefix(more ? comma + 1 : text.size());
  }
  return names;
}

class Translator {
 public:
  Translator(int world_size, const RefuseAlias& refuse)
      : world_size_(world_size), refuse_(refuse) {}

  Translation run(const std::vector<AliasUse>& uses) {
    uses_ = &uses;
    for (const auto& use : uses) {
      try {
        const bool quotes_dropped = read_leniently(*use.value, [&](const YamlNode& node) {
          AliasUse as_read = use;
          if (&node != use.value) {
            as_read.value = &unquoted_.emplace_back(node);
          }
          translate(as_read);
        });
        if (quotes_dropped) {
          result_.lines.push_back(use.spelled + ": " + std::string(kQuotesDropped));
        }
      } catch (const ValueError& error) {
        refuse_(use, error.what());
      }
    }
    finish_batch();
    finish_betas();
    finish_not_needed();
    return std::move(result_);
  }

 private:
  void translate(const AliasUse& use);
  void translate_data(const AliasUse& use);
  void translate_targets(const AliasUse& use);
  void translate_all_targets(const AliasUse& use);
  void take_only(const AliasUse& use);
  void translate_precision(const AliasUse& use);
  void translate_precision_flag(const AliasUse& use);
  void assign_precision(const AliasUse& use, const std::string& type);
  void finish_batch();
  void finish_betas();
  void finish_not_needed();
  void carry(const AliasUse& use);

  void assign(const AliasUse& use, std::string_view path, YamlNode value) {
    value.line = use.line;
    Assignment& assignment = result_.assignments.emplace_back();
    assignment.path = path;
    assignment.value = std::move(value);
    assignment.spelled = use.spelled;
    assignment.line = use.line;
  }
  void report(const AliasUse& use, const std::string& outcome) {
    result_.lines.push_back(fmt::format("{} {} → {}", use.spelled, shown(*use.value), outcome));
  }
  void assign_text(const AliasUse& use, const std::string& text) {
    assign(use, use.alias->target, YamlNode::scalar(text, use.line));
    report(use, fmt::format("{} {}", use.alias->target, text));
  }
  // Later uses of a factor would be lost without a word.
  void take_once(std::optional<AliasUse>& slot, const AliasUse& use) {
    if (slot) {
      throw ValueError("means the same as " + slot->spelled + "; keep one of them");
    }
    slot = use;
  }

  int world_size_;
  const RefuseAlias& refuse_;
  Translation result_;
  std::deque<YamlNode> unquoted_;  // values of uses that needed it
  const std::vector<AliasUse>* uses_ = nullptr;
  std::map<std::string, std::string> not_needed_;                 // reason -> keys
  std::optional<std::pair<std::string, std::string>> precision_;  // key, type
  std::optional<AliasUse> batch_;
  std::optional<AliasUse> accumulation_;
  std::optional<AliasUse> beta1_;
  std::optional<AliasUse> beta2_;
};

void Translator::translate(const AliasUse& use) {
  const YamlNode& value = *use.value;
  switch (use.alias->meaning) {
    case AliasMeaning::kSame:
      assign(use, use.alias->target, value);
      report(use, std::string(use.alias->target));
      break;
    case AliasMeaning::kSteps:
      assign_text(use, std::to_string(count_in(value, 0)) + " steps");
      break;
    case AliasMeaning::kEpochs: {
      double epochs = 0;
      RealKind{0, true, 1e9}.read(value, epochs);
      assign_text(use, real_text(epochs) + " epochs");
      break;
    }
    case AliasMeaning::kShare: {
      double share = 0;
      RealKind{0, false, 1, false}.read(value, share);
      assign_text(use, AmountKind::write({share, Unit::kFraction}));
      break;
    }
    case AliasMeaning::kBatchPerRank:
      count_in(value, 1);
      take_once(batch_, use);
      break;
    case AliasMeaning::kAccumulation:
      count_in(value, 1);
      take_once(accumulation_, use);
      break;
    case AliasMeaning::kOptimizer:
      assign_text(use, our_name(kOptimizers, scalar_text(value, "a name")));
      break;
    case AliasMeaning::kScheduler:
      assign_text(use, our_name(kSchedulers, scalar_text(value, "a name")));
      break;
    case AliasMeaning::kPrecision:
      translate_precision(use);
      break;
    case AliasMeaning::kPrecisionFlag:
      translate_precision_flag(use);
      break;
    case AliasMeaning::kBeta:
      take_once(use.alias->name == "adam_beta1" ? beta1_ : beta2_, use);
      break;
    case AliasMeaning::kTargets:
      translate_targets(use);
      break;
    case AliasMeaning::kAllTargets:
      translate_all_targets(use);
      break;
    case AliasMeaning::kDataFolder:
      translate_data(use);
      break;
    case AliasMeaning::kNoCounterpart: {
      auto& keys = not_needed_[std::string(use.alias->target)];
      keys += (keys.empty() ? "" : ", ") + use.spelled + " " + shown(*use.value);
      break;
    }
    case AliasMeaning::kOnly:
      take_only(use);
      break;
    default:
      carry(use);
  }
}

void Translator::carry(const AliasUse& use) {
  const auto sibling = [this](std::string_view name) -> const YamlNode* {
    const auto found = std::find_if(uses_->begin(), uses_->end(), [&](const AliasUse& other) {
      return other.alias->name == name;
    });
    return found == uses_->end() ? nullptr : found->value;
  };
  Carried carried = carry_over(use, sibling);
  std::string outcome = carried.outcome;
  for (auto& [path, value] : carried.settings) {
    if (carried.outcome.empty()) {
      outcome += (outcome.empty() ? "" : ", ") + path + " " + shown(value);
    }
    assign(use, path, std::move(value));
  }
  report(use, outcome);
}

// One line for all that one reason holds for.
void Translator::finish_not_needed() {
  for (const auto& [reason, keys] : not_needed_) {
    result_.lines.push_back(fmt::format("{} → not needed: {}", keys, reason));
  }
}

void Translator::translate_targets(const AliasUse& use) {
  YamlNode list = *use.value;
  if (list.kind == YamlNode::Kind::kScalar && list.text.find(',') != std::string::npos) {
    list = YamlNode::sequence(names_between_commas(list.text, use.line), use.line);
  } else if (list.kind == YamlNode::Kind::kScalar && list.text == "all") {
    list.text = "all-linear";
  }
  report(use, fmt::format("{} {}", use.alias->target, shown(list)));
  assign(use, use.alias->target, std::move(list));
}

void Translator::translate_all_targets(const AliasUse& use) {
  bool on = false;
  BooleanKind::read(*use.value, on);
  if (on) {
    assign_text(use, "all-linear");
  } else {
    report(use, "no effect");
  }
}

void Translator::take_only(const AliasUse& use) {
  const YamlNode& value = *use.value;
  const bool scalar = value.kind == YamlNode::Kind::kScalar;
  const bool none = value.kind == YamlNode::Kind::kNull || (scalar && is_none(value.text)) ||
                    (value.kind == YamlNode::Kind::kSequence && value.items.empty());
  const std::string word = scalar ? plain_word(value.text) : "";
  const std::string taken = "|" + std::string(use.alias->only) + "|";
  const bool is_taken = scalar && word.find('|') == std::string::npos &&
                        taken.find("|" + word + "|") != std::string::npos;
  if (!none && !is_taken) {
    throw ValueError(
        fmt::format("{} is not supported: {}", in_quotes(shown(value)), use.alias->target));
  }
  report(use, "no effect");
}

// Where the type is not named, the other keys may name it.
bool is_type_as_stored(const YamlNode& value) {
  return value.kind == YamlNode::Kind::kNull ||
         (value.kind == YamlNode::Kind::kScalar && value.text == "auto");
}

constexpr const char* kAsStored = "no effect: as stored, which is model.dtype auto";

void Translator::translate_precision(const AliasUse& use) {
  if (is_type_as_stored(*use.value)) {
    report(use, kAsStored);
  } else {
    assign_precision(use, our_name(kPrecisions, scalar_text(*use.value, "a type")));
  }
}

// Files name the type of the weights and that of the arithmetic, which here is one setting.
void Translator::assign_precision(const AliasUse& use, const std::string& type) {
  if (precision_ && precision_->second == type) {
    report(use, fmt::format("model.dtype {}, as {} says", type, precision_->first));
    return;
  }
  precision_ = {use.spelled, type};
  assign_text(use, type);
}

void Translator::translate_precision_flag(const AliasUse& use) {
  if (is_type_as_stored(*use.value)) {
    report(use, kAsStored);
    return;
  }
  bool on = false;
  BooleanKind::read(*use.value, on);
  const auto type = use.alias->only.empty() ? use.alias->name : use.alias->only;
  if (on) {
    assign_precision(use, std::string(type));
  } else {
    report(use, "no effect");
  }
}

void Translator::translate_data(const AliasUse& use) {
  namespace fs = std::filesystem;
  std::string given;
  PathKind::read(*use.value, given);
  if (given.ends_with(".h5") || given.ends_with(".hdf5")) {
    assign_text(use, given);
    return;
  }
  // Errors of the file system read as "not there"; opening the file later says why.
  std::error_code ignored;
  const fs::path folder = given;
  const fs::path train = folder / "train.h5";
  const bool raw = fs::is_regular_file(folder, ignored) ||
                   (fs::is_directory(folder, ignored) && !fs::exists(train, ignored));
  if (raw) {
    assign_text(use, given);  // prepared before the run
    return;
  }
  assign_text(use, train.string());
  for (const char* name : {"validation.h5", "val.h5"}) {
    const fs::path validation = folder / name;
    if (fs::exists(validation, ignored)) {
      assign(use, "data.validation", YamlNode::scalar(validation.string(), use.line));
      result_.assignments.back().implied = true;
      result_.assignments.back().report = fmt::format("{} {} → data.validation {}", use.spelled,
                                                      shown(*use.value), validation.string());
      return;
    }
  }
}

void Translator::finish_batch() {
  if (!batch_ && !accumulation_) {
    return;
  }
  const std::int64_t per_rank = batch_ ? count_in(*batch_->value, 1) : 1;
  const std::int64_t accumulation = accumulation_ ? count_in(*accumulation_->value, 1) : 1;
  const std::int64_t global = per_rank * accumulation * world_size_;
  AliasUse use = batch_ ? *batch_ : *accumulation_;
  if (batch_ && accumulation_) {
    use.spelled += " and " + accumulation_->spelled;
  }
  const auto number = [&](std::int64_t value) {
    return YamlNode::scalar(std::to_string(value), use.line);
  };
  assign(use, "batch.global", number(global));
  assign(use, "batch.per_rank", number(per_rank * accumulation));
  assign(use, "batch.micro", number(per_rank));
  assign(use, "batch.reference", number(global));
  const std::string batch =
      batch_ ? fmt::format("{} {}", batch_->spelled, per_rank) : "batch size 1 (none given)";
  const std::string accumulated = accumulation_
                                      ? fmt::format("{} {}", accumulation_->spelled, accumulation)
                                      : "accumulation 1 (none given)";
  result_.lines.push_back(
      fmt::format("{} × {} × {} → batch.global {}, batch.micro {}; batch.reference {}, so the "
                  "learning rate is used as written. These keys count per rank; a run keeps the "
                  "batch of its first start on any number of ranks",
                  batch, accumulated, counted(world_size_, "rank"), global, per_rank, global));
}

void Translator::finish_betas() {
  if (!beta1_ && !beta2_) {
    return;
  }
  AliasUse use = beta1_ ? *beta1_ : *beta2_;
  if (beta1_ && beta2_) {
    use.spelled += " and " + beta2_->spelled;
  }
  const OptimizerSection defaults;
  const auto value_of = [&](const std::optional<AliasUse>& beta, double otherwise) {
    return beta ? *beta->value : YamlNode::scalar(real_text(otherwise), use.line);
  };
  const YamlNode first = value_of(beta1_, defaults.beta1);
  const YamlNode second = value_of(beta2_, defaults.beta2);
  YamlNode pair = YamlNode::sequence({first, second}, use.line);
  result_.lines.push_back(fmt::format("{} → optimizer.betas {}", use.spelled, shown(pair)));
  assign(use, "optimizer.betas", std::move(pair));
}

}  // namespace

Translation translate_aliases(const std::vector<AliasUse>& uses, int world_size,
                              const RefuseAlias& refuse) {
  return Translator(world_size, refuse).run(uses);
}

}  // namespace lorascale::config
