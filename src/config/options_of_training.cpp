// How it is trained.
#include "config/option_adding.hpp"
#include "coordinator/mode_names.hpp"

namespace lorascale::config {
namespace {

using coordinator::BatchPolicyKind;
using coordinator::ScaleRule;
using coordinator::ScheduleKind;

// The names that the coordinator has for a mode.
template <class Mode>
ChoiceKind<Mode> modes() {
  return {{coordinator::kModes<Mode>.begin(), coordinator::kModes<Mode>.end()}};
}

AmountKind some_length() {
  return {{Unit::kSamples, Unit::kTokens, Unit::kSteps, Unit::kEpochs, Unit::kFraction},
          std::nullopt,
          false,
          "'6400 samples', '100 steps' or '10%'"};
}

void add_batch(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::batch, member); };
  const IntegerKind count{1, kMostRows};
  add(t, "batch.global", at(&BatchSection::global), count,
      "Samples of an update, over all ranks; the number of ranks never changes it.");
  add(t, "batch.per_rank", at(&BatchSection::per_rank), OptionalKind<IntegerKind>{count},
      "Samples of an update on each rank, in place of batch.global: the number of ranks at the "
      "first start makes that of it, which the run then keeps on any number of ranks.",
      kMayChange);
  add(t, "batch.reference", at(&BatchSection::reference), OptionalKind<IntegerKind>{count},
      "Global batch that optimizer.lr was tuned at; null is batch.global.");
  add(t, "batch.micro", at(&BatchSection::micro), OptionalKind<IntegerKind>{count, "auto"},
      "Samples computed at once on a rank; must divide batch.global. auto measures before the run "
      "which fit into memory and takes the fastest of them; under run.reduction exact the largest, "
      "and the largest divisor up to 8 where no limit is known (docs/memory.md). Halved when "
      "memory runs out.",
      kMayChange);
  add(t, "batch.policy", at(&BatchSection::policy), modes<BatchPolicyKind>(),
      "Who chooses the batch from batch.global on: fixed keeps it; ramp grows it to batch.max over "
      "batch.ramp; noise-scale grows it with the measured critical batch; seesaw doubles it where "
      "the schedule halves the rate; goodput takes the most progress per second.");
  add(t, "batch.increment", at(&BatchSection::increment), OptionalKind<IntegerKind>{count},
      "Batches of a policy are multiples of it; a multiple of batch.micro that divides "
      "batch.global; null is batch.global.");
  add(t, "batch.min", at(&BatchSection::min), OptionalKind<IntegerKind>{count},
      "Smallest batch; null is batch.global.");
  add(t, "batch.max", at(&BatchSection::max), OptionalKind<IntegerKind>{count},
      "Largest batch; null is an epoch, and policy ramp, which grows to it, needs it.");
  add(t, "batch.min_steps", at(&BatchSection::min_steps), IntegerKind{0},
      "No policy lets the batch pass budget / min_steps; 0 sets no such limit.");
  const AmountKind length = some_length();
  add(t, "batch.dwell", at(&BatchSection::dwell), OptionalKind<AmountKind>{length},
      "Distance between two changes, at least; null is noise.horizon under noise-scale and "
      "goodput, "
      "else 0.");
  add(t, "batch.ramp", at(&BatchSection::ramp), length, "Length of policy ramp.");
  add(t, "batch.critical", at(&BatchSection::critical), RealKind{0},
      "Critical batch in samples, where it is known; 0 measures it by noise.horizon.");
  add(t, "batch.critical_fraction", at(&BatchSection::critical_fraction), RealKind{0, true},
      "Share of the critical batch that policy noise-scale may use.");
  add(t, "batch.on_resize", at(&BatchSection::on_resize),
      choice<OnResize>({{"hold", OnResize::kHold}, {"rescale", OnResize::kRescale}}),
      "Resumed on another number of ranks: hold keeps the batch; rescale keeps each rank's share, "
      "and the rate follows by scale.rule over scale.ramp or 10 updates, what is longer.",
      kMayChange);
}

struct BetasAccess {
  std::pair<double&, double&> operator()(RunConfig& config) const {
    return {config.optimizer.beta1, config.optimizer.beta2};
  }
  std::pair<const double&, const double&> operator()(const RunConfig& config) const {
    return {config.optimizer.beta1, config.optimizer.beta2};
  }
};

void add_optimizer(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::optimizer, member); };
  const RealKind below_one{0, false, 1, true};
  add(t, "optimizer.name", at(&OptimizerSection::name),
      choice<OptimizerName>({{"adamw", OptimizerName::kAdamW},
                             {"sgd", OptimizerName::kSgd},
                             {"lamb", OptimizerName::kLamb},
                             {"lars", OptimizerName::kLars}}),
      "Update rule; lamb and lars are adamw and sgd with a trust ratio for each tensor, for large "
      "batches (docs/optimizers.md).");
  add(t, "optimizer.lr", at(&OptimizerSection::lr), RealKind{0, true},
      "Peak learning rate at batch.reference; scale.rule gives the one used.");
  add(t, "optimizer.betas", BetasAccess{}, PairKind{below_one},
      "Decay rates of the moments of adamw and lamb.");
  add(t, "optimizer.eps", at(&OptimizerSection::eps), RealKind{0, true},
      "Added to the denominator of adamw and lamb.");
  add(t, "optimizer.weight_decay", at(&OptimizerSection::weight_decay), RealKind{0},
      "Weight decay: decoupled in adamw, inside the trust ratio in lamb and lars, added to the "
      "gradient in sgd.");
  add(t, "optimizer.clip_norm", at(&OptimizerSection::clip_norm), RealKind{0},
      "Largest norm of the gradient; 0 does not clip.");
  add(t, "optimizer.momentum", at(&OptimizerSection::momentum), below_one,
      "Momentum of sgd and lars.");
  add(t, "optimizer.trust_coefficient", at(&OptimizerSection::trust_coefficient), RealKind{0, true},
      "lars: length of an update over that of the tensor, at a rate of 1.");
  add(t, "optimizer.trust_ratio_lora_b", at(&OptimizerSection::trust_ratio_lora_b), BooleanKind{},
      "Trust ratios for LoRA's B too: it starts at zero and then grows by at most 1 + lr per "
      "update, so false is what works.");
}

void add_loss(std::vector<Option>& t) {
  add(t, "loss.label_smoothing", field(&RunConfig::loss, &LossSection::label_smoothing),
      RealKind{0, false, 1, true},
      "Share a of the target that all K tokens of the vocabulary, or classes, get alike: "
      "(1 - a) y + a / K. In training only; the training loss includes it, val_loss does not.");
  const auto at = [](auto member) { return field(&RunConfig::loss, member); };
  using L = LossSection;
  const RealKind amount{0};
  add(t, "loss.min_snr_gamma", at(&L::min_snr_gamma), OptionalKind<RealKind>{RealKind{0, true}},
      "Errors at times t with a signal-to-noise ratio above it count less (min-SNR, Hang et al. "
      "2023; 5 is usual); null: all count alike.");
  add(t, "loss.debiased", at(&L::debiased), BooleanKind{},
      "Errors count by 1 / sqrt(SNR(t)), of v by 1 / (SNR(t) + 1) (Yu et al. 2024).");
  add(t, "loss.scale_v_like_noise", at(&L::scale_v_like_noise), BooleanKind{},
      "Errors of v count by SNR(t) / (SNR(t) + 1), as if noise were predicted.");
  add(t, "loss.noise_offset", at(&L::noise_offset), amount,
      "Deviation of the noise's own mean in each channel, so that pictures may become very dark or "
      "very bright; 0.05 to 0.1 is usual.");
  add(t, "loss.noise_offset_adaptive", at(&L::noise_offset_adaptive), RealKind{-10},
      "More of noise_offset where the mean of a channel's latents is far from 0: times so much.");
  add(t, "loss.input_perturbation", at(&L::input_perturbation), amount,
      "More noise on what the model sees than it is to tell of (Ning et al. 2023); 0.1 is usual.");
  add(t, "loss.zero_terminal_snr", at(&L::zero_terminal_snr), BooleanKind{},
      "The last step of the schedule is noise alone (Lin et al. 2024); for models that predict v.");
  add(t, "loss.prior_weight", at(&L::prior_weight), amount,
      "How much pictures for regularisation count.");
  add(t, "loss.kl", at(&L::kl), amount,
      "model.part autoencoder: weight of the distance of latents from a normal distribution, the "
      "mean over latents; the reconstruction is a mean over pixels.");
}

void add_average(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::average, member); };
  const std::vector<Unit> units = {Unit::kFraction, Unit::kSamples, Unit::kTokens, Unit::kSteps,
                                   Unit::kEpochs};
  add(t, "average.name", at(&AverageSection::name),
      choice<Average>({{"none", Average::kNone}, {"ema", Average::kEma}, {"swa", Average::kSwa}}),
      "Average of the weights over the updates, which is then validated, sampled from and "
      "exported; ema forgets, swa is the equal mean from average.start on (docs/optimizers.md).");
  add(t, "average.half_life", at(&AverageSection::half_life),
      AmountKind{units, std::nullopt, true, "'5%', '2000 samples' or '100 steps'"},
      "ema: after as many samples half of an update's share is left; % is of the budget.");
  add(t, "average.start", at(&AverageSection::start),
      AmountKind{units, std::nullopt, false, "'75%', '2000 samples' or '100 steps'"},
      "swa: updates after this point are averaged; % is of the budget.");
}

void add_scale(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::scale, member); };
  add(t, "scale.rule", at(&ScaleSection::rule),
      OptionalKind<ChoiceKind<ScaleRule>>{modes<ScaleRule>(), "auto"},
      "How the rate follows k = batch / reference: 1, k, sqrt(k), k^power, or the gain that "
      "adascale "
      "measures (needs noise.horizon); auto: sqrt for adamw and lamb, linear for sgd and lars.");
  add(t, "scale.power", at(&ScaleSection::power), RealKind{0, false, 1, false},
      "Exponent of the rule power.");
  add(t, "scale.betas", at(&ScaleSection::betas), BooleanKind{},
      "Let the betas follow k too: 1 - beta becomes k (1 - beta).");
  add(t, "scale.eps", at(&ScaleSection::eps), BooleanKind{},
      "Let eps follow k too: eps / sqrt(k).");
  add(t, "scale.weight_decay", at(&ScaleSection::weight_decay), BooleanKind{},
      "Let the weight decay follow k, so that decay per sample stays the same.");
  add(t, "scale.ramp", at(&ScaleSection::ramp), some_length(),
      "Way of the rate from old to new after a change of the batch; 0 changes it at once.");
  add(t, "scale.cap", at(&ScaleSection::cap), BooleanKind{},
      "Let the rate bend at the critical batch as the surge formula has it, instead of growing "
      "on.");
}

void add_schedule(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::schedule, member); };
  const AmountKind part{
      {Unit::kFraction, Unit::kSamples, Unit::kTokens, Unit::kSteps, Unit::kEpochs},
      std::nullopt,
      false,
      "'3%', '2000 samples' or '100 steps'"};
  add(t, "schedule.name", at(&ScheduleSection::name), modes<ScheduleKind>(),
      "Course of the rate after warmup; wsd holds it and decays at the end.");
  add(t, "schedule.warmup", at(&ScheduleSection::warmup), part,
      "Linear rise at the start; % is of the budget.");
  add(t, "schedule.decay", at(&ScheduleSection::decay), part,
      "Last part of wsd, where the rate falls; % is of the budget.");
  add(t, "schedule.floor", at(&ScheduleSection::floor), RealKind{0, false, 1, false},
      "Rate at the end, as a share of the peak.");
}

void add_budget(std::vector<Option>& t) {
  const AmountKind budget{
      {Unit::kEpochs, Unit::kSamples, Unit::kTokens, Unit::kSteps, Unit::kMinutes},
      std::nullopt,
      true,
      "'3 epochs', '500 steps' or '2M samples'"};
  add(t, "budget", field(&RunConfig::budget), budget, "Length of the run.", kMayChange);
}

void add_cadences(std::vector<Option>& t) {
  const AmountKind every{
      {Unit::kSteps, Unit::kSamples, Unit::kTokens, Unit::kEpochs, Unit::kFraction},
      Unit::kSteps,
      false,
      "'500 steps' or '1 epoch'"};
  AmountKind save = every;
  save.units.push_back(Unit::kMinutes);
  add(t, "checkpoint.every", field(&RunConfig::checkpoint, &CheckpointSection::every), save,
      "Distance between checkpoints; 0 saves at the end only.", kMayChange);
  add(t, "checkpoint.keep", field(&RunConfig::checkpoint, &CheckpointSection::keep),
      IntegerKind{2, 1000000},
      "How many of the newest checkpoints stay; at least 2, so that a damaged one has a fallback.",
      kMayChange);

  const auto evaluate = [](auto member) { return field(&RunConfig::evaluate, member); };
  const auto stop = [](auto member) {
    return field(&RunConfig::evaluate, &EvaluateSection::early_stop, member);
  };
  add(t, "evaluate.every", evaluate(&EvaluateSection::every), every,
      "Distance between validations; 0 switches them off.", kMayChange);
  add(t, "evaluate.max_samples", evaluate(&EvaluateSection::max_samples), IntegerKind{0},
      "Rows of the validation set that are used; 0 takes all.");
  add(t, "evaluate.early_stop.patience", stop(&EarlyStopSection::patience), IntegerKind{0, 1000000},
      "Validations without improvement until the run ends; 0 switches this off.");
  add(t, "evaluate.early_stop.min_delta", stop(&EarlyStopSection::min_delta), RealKind{0},
      "Smallest fall of the validation loss that counts as improvement.");

  const auto sample = [](auto member) { return field(&RunConfig::sample, member); };
  add(t, "sample.every", sample(&SampleSection::every), every,
      "Distance between samples; 0 switches them off.", kMayChange);
  add(t, "sample.prompts", sample(&SampleSection::prompts), TextListKind{true, "[text, ...]"},
      "What the model continues, or makes pictures of, to show how training goes.", kMayChange);
  add(t, "sample.max_tokens", sample(&SampleSection::max_tokens), IntegerKind{1, 1 << 20},
      "Length of a continuation in tokens.", kMayChange);
  add(t, "sample.temperature", sample(&SampleSection::temperature), RealKind{0},
      "Randomness of the continuation; 0 takes the likeliest token.", kMayChange);
  add(t, "sample.top_p", sample(&SampleSection::top_p), RealKind{0, true, 1, false},
      "Draw from the likeliest tokens that make up this share of probability.", kMayChange);
  using S = SampleSection;
  const OptionalKind<IntegerKind> side{IntegerKind{8, 1 << 13}};
  add(t, "sample.negative", sample(&S::negative), OptionalKind<TextKind>{TextKind{"text"}},
      "What pictures steer away from; a prompt may have its own: --n TEXT behind it.", kMayChange);
  add(t, "sample.width", sample(&S::width), side,
      "Pixels of a picture; null: as most pictures of data.train (--w N behind a prompt).",
      kMayChange);
  add(t, "sample.height", sample(&S::height), side, "Likewise (--h N).", kMayChange);
  add(t, "sample.steps", sample(&S::steps), IntegerKind{1, 1000},
      "How often the model is asked for a picture (--s N).", kMayChange);
  add(t, "sample.guidance", sample(&S::guidance), RealKind{0},
      "How far pictures go towards their prompt and away from what is not wanted; 1: no guidance, "
      "half the time (--l X).",
      kMayChange);
  add(t, "sample.sampler", sample(&S::sampler),
      words({"ddim", "euler", "euler_a", "dpmpp_2m_karras"}), "How noise becomes a picture.",
      kMayChange);
  add(t, "sample.strengths", sample(&S::strengths), RealListKind{-10, 10},
      "Of the adapter, for a picture of each prompt at each of them beside each other when the run "
      "ends; [] makes none.",
      kMayChange);
}

void add_noise(std::vector<Option>& t) {
  const AmountKind length{{Unit::kSamples, Unit::kTokens, Unit::kSteps, Unit::kEpochs},
                          std::nullopt,
                          false,
                          "'6400 samples' or '100 steps'"};
  add(t, "noise.horizon", field(&RunConfig::noise, &NoiseSection::horizon), length,
      "Samples over which the gradient noise scale is averaged, 100 batches or so; 0 does not "
      "measure "
      "it.");
}

void add_advice(std::vector<Option>& t) {
  add(t, "advice", field(&RunConfig::advice), BooleanKind{},
      "Watch the run and say once what an experienced engineer would (docs/advice.md).",
      kMayChange);
}

void add_divergence(std::vector<Option>& t) {
  const auto at = [](auto member) { return field(&RunConfig::divergence, member); };
  const AmountKind length{{Unit::kSamples, Unit::kTokens, Unit::kSteps, Unit::kEpochs},
                          std::nullopt,
                          false,
                          "'800 samples' or '50 steps'"};
  add(t, "divergence.action", at(&DivergenceSection::action),
      choice<OnDivergence>({{"stop", OnDivergence::kStop}, {"recover", OnDivergence::kRecover}}),
      "Where 10 updates in a row are not finite, or the loss stays far above its mean for 20: stop "
      "ends the run (exit code 71), recover goes back to the newest checkpoint, halves the rate "
      "and goes on.",
      kMayChange);
  add(t, "divergence.max_recoveries", at(&DivergenceSection::max_recoveries), IntegerKind{1, 50},
      "How often recover does so before it stops too.", kMayChange);
  add(t, "divergence.warmup", at(&DivergenceSection::warmup), length,
      "How long the rate rises from near 0 to the halved one after a recovery.", kMayChange);
}

void add_machine(std::vector<Option>& t) {
  const auto memory = [](auto member) { return field(&RunConfig::memory, member); };
  add(t, "memory.budget_mib", memory(&MemorySection::budget_mib), IntegerKind{0},
      "Memory for tensors of a rank on the CPU, in MiB; beyond it a rank is out of memory. 0 sets "
      "no limit. On a GPU its own memory is the limit.",
      kMayChange);
  add(t, "faults", field(&RunConfig::faults), TextListKind{true, "[fault, ...]"},
      "Faults on purpose, for drills: 'KIND step=N phase=PHASE rank=R times=T seconds=S', with "
      "oom, slow or kill in forward, backward, optimizer, evaluation, sample (rank 0 makes them) "
      "or recovery (step: the one that diverged), nan in backward, and mask (no token of a leaf is "
      "a target) in forward. times: as often as a rank comes to that phase of that step, once for "
      "each of its leaves.",
      kMayChange);
}

}  // namespace

void add_options_of_training(std::vector<Option>& table) {
  add_batch(table);
  add_optimizer(table);
  add_loss(table);
  add_average(table);
  add_scale(table);
  add_schedule(table);
  add_budget(table);
  add_cadences(table);
  add_noise(table);
  add_advice(table);
  add_divergence(table);
  add_machine(table);
}

}  // namespace lorascale::config
