#include "train/session.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "adapters/base_name.hpp"
#include "adapters/full.hpp"
#include "adapters/peft_format.hpp"
#include "base/hash.hpp"
#include "coordinator/batch/factorise.hpp"
#include "io/model_reader.hpp"
#include "train/adapter_settings.hpp"
#include "train/start_warnings.hpp"
#include "train/tensor_memory.hpp"
#include "train/vote.hpp"

namespace lorascale::train {
namespace {

constexpr std::uint64_t kMaxTokenizerBytes = std::uint64_t{256} << 20;
constexpr std::int64_t kDefaultLeaf = 8;

// All ranks must see the same files; otherwise they would train on different things.
void require_same_files(World& world, const std::string& what, const std::string& fingerprint) {
  const std::array<std::uint64_t, 1> digest = {fnv1a64(fingerprint)};
  std::vector<std::uint64_t> all(static_cast<std::size_t>(world.host.size()));
  world.host.all_gather(std::span<const std::uint64_t>(digest), std::span(all));
  // Against rank 0's, by all ranks alike: the message is the same on all of them.
  std::string others;
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] != all[0]) {
      others += (others.empty() ? "" : ", ") + std::to_string(rank);
    }
  }
  together(world.host, [&] {
    if (!others.empty()) {
      throw_bad_input(what + " on rank " + others +
                      " is not the file that rank 0 sees; copy it to every node or use a shared "
                      "file system");
    }
  });
}

// Ids mean something to one tokenizer only. A tokenizer.json may have been written anew, byte for
// byte another and the same in effect: that of the model is worth a warning, not a refusal.
void require_one_tokenizer(const Session& session) {
  const auto& ours = session.train->tokenizer();
  if (session.validation && !ours.empty() && !session.validation->tokenizer().empty() &&
      session.validation->tokenizer() != ours) {
    throw_bad_input(session.validation->path().string() + " was made with another tokenizer than " +
                    session.train->path().string() + "; prepare both with the model's own");
  }
  const auto file = io::model_folder(session.config.model.path) / "tokenizer.json";
  std::error_code ignored;
  if (!ours.empty() && std::filesystem::is_regular_file(file, ignored) &&
      sha256_hex(io::read_file(file, kMaxTokenizerBytes)) != ours) {
    spdlog::warn("{} was not made with {}; if that is not the same tokenizer, prepare it again",
                 session.train->path().string(), file.string());
  }
}

// In the units that the user wrote; the recipe knows samples alone.
void require_lengths_that_fit(const config::RunConfig& config, const coordinator::Recipe& recipe) {
  const auto written = [](const char* key, const Amount& amount, std::int64_t samples) {
    return std::string(key) + ": " + to_string(amount) + " (" + counted(samples, "sample") + ")";
  };
  const auto& schedule = config.schedule;
  const std::string warmup = written("schedule.warmup", schedule.warmup, recipe.warmup_samples);
  const std::string budget = written("budget", config.budget, recipe.budget_samples);
  if (recipe.warmup_samples > recipe.budget_samples) {
    throw_bad_config(warmup + " is longer than the run, " + budget +
                     "; shorten the warmup or raise the budget");
  }
  if (recipe.decay_samples > recipe.budget_samples - recipe.warmup_samples) {
    throw_bad_config(
        warmup + " and " + written("schedule.decay", schedule.decay, recipe.decay_samples) +
        " do not both fit into the run, " + budget + "; shorten one of them or raise the budget");
  }
}

Trainable make_trainable(const config::RunConfig& config, models::decoder::Decoder& model) {
  Trainable trainable;
  if (config.adapter.type == "full") {
    trainable.parameters = adapters::attach_full(model.parameter_slots());
    return trainable;
  }
  trainable.lora = lora_settings(config.adapter);
  trainable.modules = adapters::match_lora_targets(model.linear_groups(), trainable.lora);
  trainable.parameters = adapters::attach_lora(trainable.modules, trainable.lora, config.run.seed);
  if (config.adapter.init_from) {
    const auto adapter = adapters::read_peft_adapter(*config.adapter.init_from);
    adapters::load_peft_adapter(adapter, trainable.modules, *trainable.parameters);
    trainable.warning = adapters::warning_of_other_base(adapter, config.model.path);
  }
  return trainable;
}

// Coefficient of the trust ratios of a group; 0 where they do not apply: to vectors (norms and
// biases), as is usual, and to LoRA's B, which starts at zero and would crawl (docs/optimizers.md).
double trust_of(const adapters::ParameterGroup& group, const config::OptimizerSection& optimizer) {
  const bool excluded =
      group.name == "vector" || (group.name == "lora_B" && !optimizer.trust_ratio_lora_b);
  if (!optimizer.has_trust_ratios() || excluded) {
    return 0;
  }
  return optimizer.name == "lars" ? optimizer.trust_coefficient : 1;
}

void make_optimizer(Session& session) {
  const auto& parameters = *session.trainable.parameters;
  std::vector<optim::Segment> segments;
  for (const auto& group : parameters.groups()) {
    if (group.end == group.begin) {
      continue;
    }
    segments.push_back({group.begin,
                        group.end,
                        group.lr_ratio,
                        group.decays,
                        trust_of(group, session.config.optimizer),
                        {}});
    for (const auto& entry : parameters.entries()) {
      if (entry.offset >= group.begin && entry.offset < group.end) {
        segments.back().tensors.push_back(entry.size());
      }
    }
  }
  session.optimizer = optim::make_optimizer(session.config.optimizer.name, std::move(segments),
                                            parameters.master());
  if (session.config.average.name != "none") {
    auto average =
        std::make_unique<optim::WeightAverage>(std::move(session.optimizer), parameters.master());
    session.average = average.get();
    session.optimizer = std::move(average);
  }
}

// What a share of the budget means only where the budget has an end.
std::int64_t average_samples(const std::string& key, const Amount& amount,
                             const config::RunConfig& config, const UnitContext& context) {
  if (amount.unit == Unit::kFraction && config.budget.unit == Unit::kMinutes) {
    throw_bad_config(key + ": budget: " + to_string(config.budget) +
                     " has no end in samples; give " + key + " in samples, steps or epochs");
  }
  return to_samples(amount, context);
}

void set_average(coordinator::Recipe& recipe, const config::RunConfig& config,
                 const UnitContext& context) {
  const auto& section = config.average;
  if (section.name == "ema") {
    // Less than a sample means the same as one: the average is the newest weights.
    recipe.ema_half_life_samples = std::max<std::int64_t>(
        1, average_samples("average.half_life", section.half_life, config, context));
  } else if (section.name == "swa") {
    recipe.swa_start_samples = average_samples("average.start", section.start, config, context);
  }
}

}  // namespace

std::optional<at::ScalarType> parse_dtype(const std::string& name) {
  if (name == "bf16") {
    return at::kBFloat16;
  }
  if (name == "fp16") {
    return at::kHalf;
  }
  if (name == "fp32") {
    return at::kFloat;
  }
  return std::nullopt;
}

// What the recipe knows of changes of the batch. Lengths are resolved by `units`, the budget
// included.
void add_batch_policy(const config::RunConfig& config, const UnitContext& units,
                      coordinator::Recipe* recipe) {
  const config::BatchSection& batch = config.batch;
  if (config.budget.unit == Unit::kMinutes) {
    const Amount dwell = batch.dwell.value_or(Amount());
    for (const auto& [key, length] :
         {std::pair("batch.dwell", dwell), std::pair("batch.ramp", batch.ramp),
          std::pair("scale.ramp", config.scale.ramp)}) {
      if (length.unit == Unit::kFraction && length.value > 0) {
        throw_bad_config(std::string(key) + ": " + to_string(length) + " of a budget of " +
                         to_string(config.budget) +
                         " is no number of samples; give it in samples or steps");
      }
    }
  }
  recipe->batch_policy = batch.policy;
  recipe->batch_follows_ranks = batch.on_resize == "rescale";
  recipe->batch_increment = batch.increment.value_or(0);
  recipe->batch_min = batch.min.value_or(0);
  recipe->batch_max = batch.max.value_or(0);
  recipe->batch_min_steps = batch.min_steps;
  const bool measures = batch.policy == coordinator::BatchPolicyKind::kNoiseScale ||
                        batch.policy == coordinator::BatchPolicyKind::kGoodput;
  recipe->batch_dwell_samples = batch.dwell ? to_samples(*batch.dwell, units)
                                : measures  ? recipe->noise_horizon_samples
                                            : 0;
  recipe->batch_ramp_samples = to_samples(batch.ramp, units);
  recipe->critical_batch = batch.critical;
  recipe->critical_fraction = batch.critical_fraction;
  recipe->ramp_samples = to_samples(config.scale.ramp, units);
  recipe->surge_cap = config.scale.cap;
}

// The largest leaf that `micro: auto` takes before memory is measured.
std::int64_t usual_leaf(const config::BatchSection& batch, int world_size) {
  const std::int64_t increment = batch.increment.value_or(batch.global);
  const auto leaf = coordinator::factorise(batch.global, world_size, kDefaultLeaf).leaf_size;
  return std::gcd(leaf, increment);
}

std::vector<std::int64_t> end_ids(const models::decoder::Decoder& model,
                                  const TokenSource* source) {
  auto ids = model.config().eos_ids;
  if (source != nullptr) {
    for (const auto id : {source->end_id(), source->answer_end_id()}) {
      if (id >= 0) {
        ids.push_back(id);
      }
    }
  }
  return ids;
}

coordinator::Recipe make_recipe(const config::RunConfig& config, std::int64_t rows,
                                double tokens_per_row, int world_size, UnitContext* units) {
  UnitContext context{rows, config.batch.global, tokens_per_row, 0};
  coordinator::Recipe recipe;
  recipe.seed = config.run.seed;
  recipe.samples_per_epoch = rows;
  recipe.global_batch = config.batch.global;
  recipe.reference_batch = config.batch.reference.value_or(config.batch.global);
  recipe.leaf_size =
      config.batch.micro ? *config.batch.micro : usual_leaf(config.batch, world_size);
  if (config.budget.unit == Unit::kMinutes) {
    // A budget in time has no end in samples that a rate could be planned by.
    if (config.schedule.name != coordinator::ScheduleKind::kConstant ||
        (config.schedule.warmup.unit == Unit::kFraction && config.schedule.warmup.value > 0)) {
      throw_bad_config(
          "budget: " + to_string(config.budget) +
          " has no end in samples; use schedule.name: constant with schedule.warmup in samples or "
          "steps, or give the budget in samples, steps or epochs");
    }
    recipe.budget_minutes = config.budget.value;
    recipe.budget_samples = coordinator::kNoSampleLimit;
  } else {
    recipe.budget_samples = to_samples(config.budget, context);
  }
  context.budget_samples = recipe.budget_samples;
  recipe.lr = config.optimizer.lr;
  recipe.beta1 =
      config.optimizer.has_moments() ? config.optimizer.beta1 : config.optimizer.momentum;
  recipe.beta2 = config.optimizer.beta2;
  recipe.eps = config.optimizer.eps;
  recipe.weight_decay = config.optimizer.weight_decay;
  recipe.rule =
      config.scale.rule.value_or(config.optimizer.has_moments() ? coordinator::ScaleRule::kSqrt
                                                                : coordinator::ScaleRule::kLinear);
  // AdaScale's exponent: the gain itself for SGD; for Adam its root, as rule sqrt has it of k.
  recipe.power = recipe.rule != coordinator::ScaleRule::kAdascale ? config.scale.power
                 : config.optimizer.has_moments()                 ? 0.5
                                                                  : 1.0;
  recipe.noise_horizon_samples = to_samples(config.noise.horizon, context);
  add_batch_policy(config, context, &recipe);
  recipe.scale_betas = config.scale.betas && config.optimizer.has_moments();
  recipe.scale_eps = config.scale.eps;
  recipe.scale_weight_decay = config.scale.weight_decay;
  recipe.schedule = config.schedule.name;
  recipe.warmup_samples = to_samples(config.schedule.warmup, context);
  recipe.decay_samples = recipe.schedule == coordinator::ScheduleKind::kWsd
                             ? to_samples(config.schedule.decay, context)
                             : 0;
  require_lengths_that_fit(config, recipe);
  recipe.floor = config.schedule.floor;
  set_average(recipe, config, context);
  if (config.divergence.action == "recover") {
    recipe.max_recoveries = config.divergence.max_recoveries;
    recipe.recovery_warmup_samples = to_samples(config.divergence.warmup, context);
  }
  recipe.patience = config.evaluate.early_stop.patience;
  recipe.min_delta = config.evaluate.early_stop.min_delta;
  recipe.advise = config.advice;
  recipe.budget_in_steps = config.budget.unit == Unit::kSteps;
  recipe.shuffled = config.data.shuffle;
  recipe.adapter_rank = config.adapter.type == "full" ? 0 : config.adapter.rank;
  if (units != nullptr) {
    *units = context;
  }
  return recipe;
}

namespace {

// None where nothing is sampled.
std::vector<std::string> sampled_prompts(const config::RunConfig& config) {
  return config.sample.every.value > 0 ? config.sample.prompts : std::vector<std::string>();
}

}  // namespace

void describe_data(const Session& session, coordinator::Recipe& recipe) {
  recipe.trainable_parameters = session.trainable.parameters->size();
  recipe.targets_per_epoch = session.train->targets_per_epoch();
  recipe.documents = session.train->documents();
  recipe.packed = session.train->packed();
  const auto& left_out = session.train->left_out();
  recipe.pieces_left_out = left_out.pieces;
  recipe.pieces = left_out.pieces > 0 ? left_out.of : 0;
}

Session open_session(World& world, const config::RunConfig& config,
                     const prepare::DataFiles& files) {
  Session session;
  session.config = config;
  session.files = files;
  together(world.host, [&] {
    const io::ModelReader reader(config.model.path);
    session.model_fingerprint = reader.fingerprint();
    bool out_of_memory = false;
    const auto error = attempt(
        [&] {
          session.model = models::decoder::load_decoder(
              config.model.path, parse_dtype(config.model.dtype), world.place);
        },
        &out_of_memory);
    if (out_of_memory) {
      throw_bad_config("the weights of " + config.model.path + " do not fit into memory; use a " +
                       "smaller model.dtype or model" + budget_remedy(world.place));
    }
    if (error) {
      throw Error(*error);
    }
    session.model->set_recompute(config.model.recompute);
    session.model->set_label_smoothing(config.loss.label_smoothing);
    const auto& data = config.data;
    TokenSourceSettings settings{data.sequence_length, data.packing, session.model->vocabulary(),
                                 config.batch.global};
    session.train = std::make_unique<TokenSource>(files.train, settings);
    settings.packing = session.config.data.packing = session.train->packed();
    if (files.validation) {
      session.validation = std::make_unique<TokenSource>(*files.validation, settings);
    }
    for (const auto* source : {session.train.get(), session.validation.get()}) {
      if (source != nullptr) {
        source->require_targets();
      }
    }
    require_one_tokenizer(session);
    const auto& positions = session.model->config();
    require_positions(positions, data.sequence_length,
                      "data.sequence_length " + std::to_string(data.sequence_length));
    for (const auto& prompt : sampled_prompts(config)) {  // refuses now, not hours later
      const auto length = static_cast<std::int64_t>(session.train->encode_prompt(prompt).size());
      require_positions(positions, length + config.sample.max_tokens,
                        "a prompt of sample.prompts with sample.max_tokens " +
                            std::to_string(config.sample.max_tokens));
    }
    session.trainable = make_trainable(config, *session.model);
    make_optimizer(session);
    session.recipe = make_recipe(config, session.train->rows(), session.train->tokens_per_row(),
                                 world.host.size(), &session.units);
    describe_data(session, session.recipe);
  });
  require_same_files(world, config.model.path, session.model_fingerprint);
  require_same_files(world, files.train.string(), session.train->fingerprint());
  if (session.validation) {
    require_same_files(world, files.validation->string(), session.validation->fingerprint());
  }
  if (world.is_root()) {
    for (const auto& warning : start_warnings(config, *session.model)) {
      spdlog::warn("{}", warning);
    }
    const auto end = session.train->answer_end_id();
    const std::vector<std::int32_t> ids(end >= 0 ? 1 : 0, static_cast<std::int32_t>(end));
    if (const auto warning =
            warning_of_end_token(session.model->config(), end, session.train->decode(ids))) {
      spdlog::warn("{}", *warning);
    }
    for (const auto* source : {session.train.get(), session.validation.get()}) {
      if (source != nullptr && source->left_out().pieces > 0) {
        spdlog::warn("{}; left out", source->left_out_text());
      }
    }
    if (session.trainable.warning) {
      spdlog::warn("adapter.init_from: {}", *session.trainable.warning);
    }
  }
  return session;
}

}  // namespace lorascale::train
