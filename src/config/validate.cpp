#include "config/validate.hpp"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <utility>

#include "base/error.hpp"
#include "config/options.hpp"
#include "config/problems.hpp"
#include "config/text.hpp"

namespace lorascale::config {
namespace {

using coordinator::BatchPolicyKind;
using coordinator::ScaleRule;
using coordinator::ScheduleKind;

// What is of LoRA alone, and of LoRA and IA3.
const std::vector<std::string_view> kLoraSettings = {"adapter.rank",
                                                     "adapter.alpha",
                                                     "adapter.dropout",
                                                     "adapter.rank_dropout",
                                                     "adapter.module_dropout",
                                                     "adapter.rslora",
                                                     "adapter.dora",
                                                     "adapter.lr_ratio",
                                                     "adapter.rank_pattern",
                                                     "adapter.alpha_pattern",
                                                     "adapter.scale_weight_norms"};
const std::vector<std::string_view> kLayerSettings = {"adapter.targets", "adapter.lr_pattern"};

class Validator {
 public:
  Validator(const RunConfig& config, Problems& problems) : config_(config), problems_(problems) {}

  std::vector<std::string> run(Purpose purpose) {
    check_ranges();
    check_paths(purpose);
    check_adapter();
    check_token();
    check_architecture();
    if (purpose == Purpose::kTraining) {
      check_batch();
      check_scale();
      check_optimizer();
      check_average();
      check_schedule();
      check_divergence();
      check_evaluation();
      check_sampling();
    }
    return std::move(warnings_);
  }

 private:
  void check_ranges();
  void check_paths(Purpose purpose);
  void check_adapter();
  void check_token();
  void check_architecture();
  void check_batch();
  void check_scale();
  void check_optimizer();
  void check_average();
  void check_schedule();
  void check_divergence();
  void check_evaluation();
  void check_sampling();

  void refuse(const std::string& message) { problems_.add(kAfterTheFile, message); }
  // A key that could not be read, or was misspelled, is not missing as well.
  void require(bool given, const std::string& key, const std::string& remedy) {
    if (!given && !problems_.name(key)) {
      refuse(key + " is not set; " + remedy);
    }
  }
  // Options that differ from their default although nothing will look at them.
  void warn_unused(const std::vector<std::string_view>& paths, const std::string& reason) {
    const RunConfig defaults;
    for (const auto path : paths) {
      const Option* option = find_option(path);
      LS_ASSERT(option != nullptr);
      if (option->write(config_) != option->write(defaults)) {
        warnings_.push_back(option->path + " " + option->write(config_) +
                            " has no effect: " + reason);
      }
    }
  }

  const RunConfig& config_;
  Problems& problems_;
  std::vector<std::string> warnings_;
};

void Validator::check_ranges() {
  for (const auto& option : options()) {
    try {
      RunConfig scratch;
      option.read(parse_yaml(option.write(config_)), scratch);
    } catch (const ValueError& error) {
      refuse(option.path + ": " + error.what());
    } catch (const YamlError& error) {
      refuse(option.path + ": " + error.what());
    }
  }
}

void Validator::check_paths(Purpose purpose) {
  require(!config_.model.path.empty() || config_.model.architecture, "model.path",
          "name the folder of the base model, or set model.architecture: resnet (and adapter.type: "
          "full) for a new network for pictures");
  if (!config_.model.path.empty() && config_.model.architecture) {
    refuse(
        "model.path and model.architecture both say what is trained; keep model.path to go on from "
        "a model, model.architecture to begin with one that is untrained");
  }
  if (config_.model.architecture && !config_.adapter.trains_base()) {
    refuse("adapter.type " + config_.adapter.type +
           " adapts a model that was trained; with model.architecture set adapter.type: full");
  }
  if (config_.model.part == ModelPart::kAutoencoder) {
    if (!config_.adapter.trains_base()) {
      refuse("model.part autoencoder trains whole weights; set adapter.type: full");
    }
    if (config_.model.vae) {
      refuse(
          "model.vae is another autoencoder than the model's own, which model.part autoencoder "
          "trains; put it into the model's files first, or leave one of them out");
    }
    warn_unused({"sample.prompts"}, "an autoencoder makes no pictures of prompts");
    warn_unused({"model.recompute"}, "an autoencoder keeps its activations");
    warn_unused(
        {"loss.min_snr_gamma", "loss.debiased", "loss.scale_v_like_noise", "loss.noise_offset",
         "loss.noise_offset_adaptive", "loss.input_perturbation", "loss.zero_terminal_snr"},
        "an autoencoder learns without noise's schedule");
  } else {
    warn_unused({"loss.kl"}, "it is of model.part autoencoder");
  }
  if (config_.run.output_dir.empty()) {
    refuse("run.output_dir is empty; name a folder for the run");
  }
  if (purpose != Purpose::kTraining) {
    return;
  }
  require(!config_.data.train.empty(), "data.train",
          "name the training set: a token file, text, JSON Lines, or a folder");
  if (config_.data.validation && config_.data.validation->empty()) {
    refuse("data.validation is empty; name a file, or write null for none");
  }
  if (config_.data.validation && config_.data.prepare.validation_fraction > 0) {
    refuse(
        "data.validation and data.prepare.validation_fraction both make a validation set; keep "
        "one of them");
  }
  if (!config_.data.train.empty() && config_.data.validation == config_.data.train) {
    warnings_.push_back("data.validation is the training set: val_loss will not show overfitting");
  }
  if (config_.adapter.init_from && config_.adapter.init_from->empty()) {
    refuse("adapter.init_from is empty; name an adapter folder, or write null for none");
  }
}

void Validator::check_adapter() {
  const AdapterSection& adapter = config_.adapter;
  const std::set<std::string> distinct(adapter.targets.begin(), adapter.targets.end());
  if (distinct.size() != adapter.targets.size()) {
    refuse("adapter.targets names a layer twice; keep one of each");
  }
  if (distinct.contains("all-linear") && distinct.size() > 1) {
    refuse("adapter.targets: all-linear already means every layer; write it alone");
  }
  if (adapter.trains_base()) {
    if (config_.model.share == Share::kNode) {
      refuse(
          "model.share: node is for weights that stay frozen, and adapter.type full trains them; "
          "set model.share: auto or none");
    }
    warn_unused(kLoraSettings, "adapter.type is full");
    warn_unused(kLayerSettings, "adapter.type is full");
    warn_unused({"adapter.init_from"}, "adapter.type is full");
  }
  if (adapter.type == "ia3") {
    warn_unused(kLoraSettings, "adapter.type is ia3");
  } else {
    warn_unused({"adapter.feedforward"}, "adapter.type is " + adapter.type);
  }
}

void Validator::check_token() {
  const AdapterSection& adapter = config_.adapter;
  const bool alone = adapter.type == "token";
  if (!adapter.token.word) {
    if (alone) {
      refuse("adapter.type: token needs adapter.token.word, the word of the captions to learn");
    } else {
      warn_unused({"adapter.token.vectors", "adapter.token.init", "adapter.token.lr_ratio"},
                  "adapter.token.word is null");
    }
    return;
  }
  if (adapter.token.word->find_first_not_of(" \t\n") == std::string::npos) {
    refuse("adapter.token.word is empty; name a word of the captions, or write null for none");
  }
  if (alone) {
    warn_unused(kLoraSettings, "adapter.type is token");
    warn_unused(kLayerSettings, "adapter.type is token");
    if (std::ranges::any_of(config_.sample.strengths,
                            [](double value) { return value != 0 && value != 1; })) {
      refuse("sample.strengths: a word has no strength but 0 and 1; name these, or [] for none");
    }
  } else if (adapter.type != "lora") {
    refuse("adapter.token.word is learnt alone (adapter.type: token) or beside LoRA (lora), not " +
           adapter.type + "; set one of these, or leave it out");
  }
}

void Validator::check_architecture() {
  if (!config_.model.architecture) {
    return;
  }
  const auto& norm = config_.model.resnet.norm;
  if (norm != "batch") {
    warn_unused({"model.resnet.ghost_batch"}, "model.resnet.norm is " + norm);
  }
  if (norm != "group") {
    warn_unused({"model.resnet.groups"}, "model.resnet.norm is " + norm);
  }
}

// The divisors of `global` next to `micro`, which is none, and the multiples of `micro` next to
// `global`.
std::string nearest_that_fit(std::int64_t global, std::int64_t micro) {
  std::int64_t below = 1;
  std::int64_t above = 0;  // none
  for (std::int64_t divisor = 1; divisor * divisor <= global; ++divisor) {
    if (global % divisor != 0) {
      continue;
    }
    for (const std::int64_t candidate : {divisor, global / divisor}) {
      if (candidate < micro) {
        below = std::max(below, candidate);
      } else if (above == 0 || candidate < above) {
        above = candidate;
      }
    }
  }
  const std::int64_t fewer = global / micro * micro;
  return "batch.micro " + std::to_string(below) +
         (above > 0 ? " or " + std::to_string(above) : std::string()) + ", or batch.global " +
         (fewer > 0 ? std::to_string(fewer) + " or " : std::string()) +
         std::to_string(fewer + micro);
}

void Validator::check_batch() {
  const BatchSection& batch = config_.batch;
  if (batch.policy == BatchPolicyKind::kFixed) {
    warn_unused({"batch.min_steps", "batch.dwell"}, "batch.policy is fixed");
    if (batch.on_resize == OnResize::kHold) {
      warn_unused({"batch.increment", "batch.min", "batch.max", "scale.ramp"},
                  "batch.policy is fixed and batch.on_resize is hold");
    }
  }
  if (batch.policy != BatchPolicyKind::kRamp) {
    warn_unused({"batch.ramp"}, "batch.policy is not ramp");
  }
  if (batch.policy != BatchPolicyKind::kNoiseScale) {
    warn_unused({"batch.critical_fraction"}, "batch.policy is not noise-scale");
  }
  if (batch.global < 1 || !batch.micro || *batch.micro < 1) {
    return;  // the ranges have been refused already
  }
  if (problems_.name("batch.")) {
    return;  // half of what was meant is not known
  }
  if (batch.global % *batch.micro != 0) {
    refuse("batch.micro " + std::to_string(*batch.micro) + " does not divide batch.global " +
           std::to_string(batch.global) +
           "; nearest that fit: " + nearest_that_fit(batch.global, *batch.micro));
  }
}

void Validator::check_scale() {
  if (config_.scale.rule != ScaleRule::kPower) {
    warn_unused({"scale.power"}, "scale.rule is not power");
  }
  if (!config_.optimizer.has_moments()) {
    warn_unused({"scale.betas", "scale.eps"},
                find_option("optimizer.name")->write(config_) + " has neither betas nor eps");
  }
}

void Validator::check_optimizer() {
  const OptimizerSection& optimizer = config_.optimizer;
  const std::string reason = "optimizer.name is " + find_option("optimizer.name")->write(config_);
  if (optimizer.has_moments()) {
    warn_unused({"optimizer.momentum"}, reason);
  } else {
    warn_unused({"optimizer.betas", "optimizer.eps"}, reason);
  }
  if (optimizer.name != OptimizerName::kLars) {
    warn_unused({"optimizer.trust_coefficient"}, reason);
  }
  if (!optimizer.has_trust_ratios()) {
    warn_unused({"optimizer.trust_ratio_lora_b"}, reason);
  } else if (config_.adapter.trains_base()) {
    warn_unused({"optimizer.trust_ratio_lora_b"}, "adapter.type is full");
  }
}

void Validator::check_average() {
  const std::string reason = "average.name is " + find_option("average.name")->write(config_);
  if (config_.average.name != Average::kEma) {
    warn_unused({"average.half_life"}, reason);
  }
  if (config_.average.name != Average::kSwa) {
    warn_unused({"average.start"}, reason);
  }
}

void Validator::check_schedule() {
  const ScheduleSection& schedule = config_.schedule;
  if (schedule.name != ScheduleKind::kWsd) {
    warn_unused({"schedule.decay"}, "schedule.name is not wsd");
  }
  if (schedule.name == ScheduleKind::kConstant) {
    warn_unused({"schedule.floor"}, "schedule.name is constant");
  }
  const bool both_shares =
      schedule.warmup.unit == Unit::kFraction && schedule.decay.unit == Unit::kFraction;
  if (schedule.name == ScheduleKind::kWsd && both_shares &&
      schedule.warmup.value + schedule.decay.value > 1) {
    refuse("schedule.warmup and schedule.decay are more than 100% together; shorten one of them");
  }
  const bool same_unit = schedule.warmup.unit == config_.budget.unit;
  if (same_unit && schedule.warmup.value > config_.budget.value) {
    refuse("schedule.warmup: " + to_string(schedule.warmup) + " is longer than the run, budget: " +
           to_string(config_.budget) + "; shorten the warmup or raise the budget");
  }
}

void Validator::check_evaluation() {
  const EvaluateSection& evaluate = config_.evaluate;
  const bool validates = config_.data.validation || config_.data.prepare.validation_fraction > 0;
  if (evaluate.early_stop.patience > 0 && !validates) {
    refuse("evaluate.early_stop needs a validation set; set data.validation, or patience to 0");
  }
  if (evaluate.early_stop.patience > 0 && evaluate.every.value == 0) {
    refuse("evaluate.early_stop needs validations; set evaluate.every, or patience to 0");
  }
  if (evaluate.early_stop.patience == 0) {
    warn_unused({"evaluate.early_stop.min_delta"}, "evaluate.early_stop.patience is 0");
  }
  if (!validates) {
    warn_unused({"evaluate.every", "evaluate.max_samples"}, "there is no data.validation");
  }
}

void Validator::check_divergence() {
  if (config_.divergence.action != OnDivergence::kRecover) {
    warn_unused({"divergence.max_recoveries", "divergence.warmup"},
                "divergence.action is " + find_option("divergence.action")->write(config_));
  }
}

void Validator::check_sampling() {
  const SampleSection& sample = config_.sample;
  if (sample.prompts.empty()) {
    warn_unused({"sample.every", "sample.max_tokens", "sample.temperature", "sample.top_p"},
                "sample.prompts is empty");
  } else if (sample.every.value == 0) {
    warn_unused({"sample.prompts"}, "sample.every is 0");
  }
  if (!sample.prompts.empty() && sample.temperature == 0) {
    warn_unused({"sample.top_p"}, "sample.temperature is 0, which takes the likeliest token");
  }
}

}  // namespace

std::vector<std::string> validate(const RunConfig& config, Purpose purpose, Problems& problems) {
  return Validator(config, problems).run(purpose);
}

std::vector<std::string> validate(const RunConfig& config, Purpose purpose) {
  Problems problems;
  auto warnings = validate(config, purpose, problems);
  problems.throw_if_any();
  return warnings;
}

}  // namespace lorascale::config
