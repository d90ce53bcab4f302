#include "train/trainer.hpp"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "config/resolved.hpp"
#include "io/checkpoint_retention.hpp"
#include "io/durable_file.hpp"
#include "models/decoder/generate.hpp"
#include "train/averaged_weights.hpp"
#include "train/evaluator.hpp"
#include "train/failure_report.hpp"
#include "train/signals.hpp"
#include "train/snapshot.hpp"
#include "train/stopwatch.hpp"
#include "train/tensor_memory.hpp"
#include "train/update_attempt.hpp"

namespace lorascale::train {
namespace {

constexpr int kMaxFailedWrites = 3;
constexpr std::int64_t kMovementEvery = 50;  // updates, beside validations

void say(const coordinator::Decision& decision) {
  constexpr std::array<std::string_view, 4> kTrouble = {"advice", "skip", "diverged", "recover"};
  const bool trouble = std::ranges::find(kTrouble, decision.kind) != kTrouble.end();
  spdlog::log(trouble ? spdlog::level::warn : spdlog::level::info, "{}: {}", decision.kind,
              decision.reason);
}

}  // namespace

Trainer::Trainer(World& world, Session& session, GoOn go_on)
    : world_(world),
      session_(session),
      go_on_(std::move(go_on)),
      folder_(session.config.run.output_dir),
      evaluation_leaf_(session.recipe.leaf_size),
      peak_memory_(world.place),
      faults_(session.config.faults, world.host.rank()),
      updater_(world, *session.model, *session.trainable.parameters, *session.optimizer,
               session.config, faults_),
      movement_(session.trainable),
      checkpoint_cadence_(session.config.checkpoint.every, session.units),
      evaluate_cadence_(session.config.evaluate.every, session.units),
      sample_cadence_(session.config.sample.every, session.units) {}

Trainer::~Trainer() = default;

double Trainer::elapsed_minutes() const {
  const std::chrono::duration<double, std::ratio<60>> minutes =
      std::chrono::steady_clock::now() - started_;
  return minutes_before_ + minutes.count();
}

coordinator::Progress Trainer::progress() const {
  return {coordinator_->steps_done(), coordinator_->samples_seen(),
          coordinator_->elapsed_minutes()};
}

void Trainer::write(const std::vector<coordinator::Decision>& decisions) {
  log_->write(decisions);
  for (const auto& decision : decisions) {
    progress_->clear();
    say(decision);
  }
}

void Trainer::write_decisions() {
  const auto decisions = coordinator_->take_decisions();
  if (world_.is_root()) {
    write(decisions);
  }
}

void Trainer::record(const coordinator::Event& event) {
  if (events_) {
    events_->write(event);
  }
}

// Ranks need not agree on it to the last bit: nothing follows from it but words.
void Trainer::report_movement() {
  if (!session_.config.advice) {
    return;
  }
  if (const auto ratio = movement_.ratio()) {
    const coordinator::MovementFacts facts{coordinator_->steps_done(), *ratio};
    coordinator_->on_movement(facts);
    record(facts);
  }
}

std::optional<double> Trainer::validate() {
  if (!session_.validation || session_.config.evaluate.every.value == 0) {
    return std::nullopt;
  }
  // Until its end: what is validated is what best/ gets.
  std::optional<AveragedWeights> averaged;
  averaged.emplace(session_.average, *session_.trainable.parameters);
  const auto measured =
      evaluate(world_, *session_.model, *session_.validation, session_.config.evaluate.max_samples,
               evaluation_leaf_, faults_, [&](const auto& facts) { aside_out_of_memory(facts); });
  if (!measured) {
    averaged.reset();  // a checkpoint holds the weights that are trained
    give_up(fmt::format("validation after step {} runs out of memory even in leaves of one sample",
                        coordinator_->steps_done()));
  }
  const double loss = *measured;
  validated_step_ = coordinator_->steps_done();
  last_validation_ = loss;
  const bool best = coordinator_->on_evaluation({validated_step_, loss});
  record(coordinator::EvaluationFacts{validated_step_, loss});
  if (world_.is_root()) {
    progress_->clear();
    spdlog::info("validation after step {}: loss {:.4f}{}", validated_step_, loss,
                 best ? " (best)" : "");
  }
  if (world_.is_root()) {
    std::vector<float> norms;
    const auto& parameters = *session_.trainable.parameters;
    for (const auto& entry : parameters.entries()) {
      norms.push_back(parameters.view(parameters.master(), entry).norm().item<float>());
    }
    log_->write_norms(validated_step_, norms);
  }
  // The untrained start is no result worth keeping.
  if (best && validated_step_ > 0) {
    export_result(folder_ / "best", &best_writes_);
  }
  return loss;
}

std::string Trainer::continued_prompts() const {
  const auto& section = session_.config.sample;
  models::decoder::GenerationSettings settings{section.max_tokens, section.temperature,
                                               section.top_p, session_.config.run.seed,
                                               end_ids(*session_.model, session_.train.get())};
  std::string text;
  for (const auto& prompt : section.prompts) {
    const auto ids = session_.train->encode_prompt(prompt);
    const auto continuation =
        session_.train->decode(models::decoder::generate(*session_.model, ids, settings));
    ++settings.seed;  // or chance would carry every prompt to the same words
    // Where the ids say more than the prompt, as in a chat, what follows is an answer.
    const bool answers = !session_.train->decode(ids).ends_with(prompt);
    text += fmt::format("> {0}\n{0}{1}{2}\n\n", prompt, answers ? "\n" : "", continuation);
  }
  return text;
}

void Trainer::show_samples(const std::string& when) {
  if (session_.config.sample.prompts.empty() || session_.config.sample.every.value == 0) {
    return;
  }
  const AveragedWeights averaged(session_.average, *session_.trainable.parameters);
  bool out_of_memory = false;
  root_alone(
      world_.host,
      [&] {
        faults_.reach(Phase::kSample);
        const auto text = continued_prompts();
        log_->write_samples(coordinator_->steps_done(), "```\n" + text + "```");
        std::filesystem::create_directories(folder_ / "samples");
        io::write_file_atomically(folder_ / "samples" / (when + ".txt"), std::string_view(text));
      },
      &out_of_memory);
  if (out_of_memory) {
    release_cached_memory(world_.place);
    aside_out_of_memory({0, coordinator::AsideMemoryFacts::Task::kSampling, 1, 0, 0});
  }
}

void Trainer::aside_out_of_memory(coordinator::AsideMemoryFacts facts) {
  facts.step = coordinator_->steps_done();
  coordinator_->on_aside_out_of_memory(facts);
  record(facts);
  write_decisions();
}

// A disk that is full now may have room later: what may be written again costs a warning, and only
// a row of failures ends the run.
void Trainer::write_alone(Tolerance* tolerance, const std::function<void()>& action) {
  root_alone(world_.host, [&] {
    const auto error = attempt(action);
    if (error && (tolerance == nullptr || error->code() != ExitCode::kCannotWrite ||
                  tolerance->failures_in_a_row + 1 == kMaxFailedWrites)) {
      throw Error(*error);
    }
    if (tolerance != nullptr) {
      tolerance->failures_in_a_row = error ? tolerance->failures_in_a_row + 1 : 0;
      tolerance->lost = error;
    }
    if (error) {
      progress_->clear();
      spdlog::warn("{}; training goes on", error->what());
    }
  });
}

void Trainer::save_checkpoint(bool must_succeed, io::Existing existing) {
  if (saved_step_ == coordinator_->steps_done()) {
    return;
  }
  write_alone(must_succeed ? nullptr : &checkpoint_writes_, [&] {
    save_snapshot(folder_ / "checkpoints",
                  {coordinator_->steps_done(), coordinator_->samples_seen(), world_.host.size(),
                   config::write_for_run_folder(session_.config), session_.train->fingerprint(),
                   session_.model_fingerprint, coordinator_->state()},
                  *session_.trainable.parameters, *session_.optimizer, *lock_, existing);
    io::prune_checkpoints(folder_ / "checkpoints",
                          static_cast<int>(session_.config.checkpoint.keep));
    write_status(folder_, "running", ExitCode::kDone, coordinator_->steps_done(),
                 lock_->generation(), "checkpoint saved");
  });
  saved_step_ = coordinator_->steps_done();
  checkpoint_owed_ = false;
}

MetricsLine Trainer::metrics_line(const coordinator::StepPlan& plan,
                                  const UpdateResult& result) const {
  MetricsLine line;
  line.step = plan.step;
  line.samples = coordinator_->samples_seen();
  line.epoch =
      static_cast<double>(line.samples) / static_cast<double>(session_.recipe.samples_per_epoch);
  line.loss = result.facts.loss;
  line.grad_norm = result.facts.grad_norm;
  line.plan = plan;
  line.applied = result.facts.applied;
  line.targets = result.targets;
  line.tokens = result.tokens;
  line.world_size = world_.host.size();
  line.accumulation = (plan.leaves + line.world_size - 1) / line.world_size;
  line.times = result.times;
  if (const auto noise = coordinator_->noise().combined; noise.known) {
    line.noise = noise;
  }
  return line;
}

UpdateResult Trainer::attempt_update(const coordinator::StepPlan& plan) {
  return run_update(world_, *session_.train, updater_, faults_, plan, [&] {
    return Ballot{stop_was_requested(), elapsed_minutes(), false};
  });
}

// The end of a run that does not fit into memory.
void Trainer::give_up(const std::string& what) {
  if (coordinator_->stop_reason() != coordinator::StopReason::kDiverged) {
    save_checkpoint(/*must_succeed=*/true);
  }
  const auto message = what + "; " + memory_remedy(world_.place) +
                       "; what was trained so far is in " + (folder_ / "checkpoints").string();
  together(world_.host, [&] { throw_bad_config(message); });
}

// The same update in smaller leaves, until it fits on every rank.
coordinator::StepPlan Trainer::shrink(const coordinator::MemoryFacts& facts,
                                      std::int64_t leaf_size) {
  release_cached_memory(world_.place);
  if (!coordinator_->on_out_of_memory(facts)) {
    give_up(does_not_fit(facts));
  }
  record(facts);
  write_decisions();
  const auto plan = *coordinator_->next_step();
  if (session_.config.run.reduction == "exact" && plan.leaf_size != leaf_size && world_.is_root()) {
    spdlog::warn(
        "run.reduction exact: smaller leaves round otherwise, so the bits from here on are those "
        "of every run that takes this leaf at update {}, on any number of ranks, and not those of "
        "one that never ran out of memory",
        facts.step);
  }
  return plan;
}

void Trainer::train_one(coordinator::StepPlan plan) {
  const auto before = progress();
  auto result = attempt_update(plan);
  while (result.out_of_memory) {
    plan = shrink(*result.out_of_memory, plan.leaf_size);
    result = attempt_update(plan);
  }
  Stopwatch watch;
  coordinator_->on_step(result.facts);
  record(result.facts);
  double coordinating = watch.lap();
  stop_requested_ = result.stop_requested;
  const auto after = progress();
  MetricsLine line = metrics_line(plan, result);
  const bool over = !coordinator_->next_step().has_value();
  if (evaluate_cadence_.due(before, after) || (over && !coordinator_->recovery_due())) {
    line.val_loss = validate();
  }
  watch.lap();
  const bool ended = !coordinator_->next_step().has_value();  // early stopping follows a validation
  if (line.val_loss || ended || after.steps % kMovementEvery == 0) {
    report_movement();
  }
  write_decisions();
  line.times.coordinator = coordinating + watch.lap();
  line.peak_memory = peak_memory_.look();
  if (world_.is_root()) {
    log_->write(line);
    progress_->update(line, coordinator_->steps_expected(), coordinator_->elapsed_minutes());
  }
  if (sample_cadence_.due(before, after) && !ended) {
    show_samples(fmt::format("step-{:08d}", after.steps));
  }
  // A diverged state is not worth going on from: the checkpoint before it stays the newest.
  const bool diverged = coordinator_->stop_reason() == coordinator::StopReason::kDiverged;
  // Nor is one to go back to that may be about to diverge.
  checkpoint_owed_ = checkpoint_owed_ || checkpoint_cadence_.due(before, after);
  const bool good = !coordinator_->in_trouble();
  if (!diverged && ((checkpoint_owed_ && good) || ended || stop_requested_)) {
    save_checkpoint(/*must_succeed=*/ended || stop_requested_);
  }
}

ExitCode Trainer::run(Watchdog& watchdog) {
  open_run_folder(watchdog);
  try {
    return train_to_the_end();
  } catch (const Error& error) {
    record_failure(error.code(), error.what());
    throw;
  } catch (const std::exception& error) {
    record_failure(ExitCode::kInternal, error.what());
    throw;
  }
}

ExitCode Trainer::train_to_the_end() {
  resume_or_start();
  session_.train->start(session_.config.data.shuffle ? std::optional(session_.config.run.seed)
                                                     : std::nullopt);
  if (saved_step_ < 0) {
    MetricsLine line;
    line.val_loss = validate();
    line.peak_memory = peak_memory_.look();
    report_movement();
    write_decisions();
    if (world_.is_root() && line.val_loss) {
      log_->write(line);
    }
    show_samples("before");
    if (session_.recipe.max_recoveries > 0) {
      save_checkpoint(/*must_succeed=*/true);  // the first place to go back to
    }
  }
  while (!stop_requested_) {
    const auto plan = coordinator_->next_step();
    if (!plan) {
      break;
    }
    train_one(*plan);
    if (coordinator_->recovery_due()) {
      recover();
    }
  }
  return finish();
}

}  // namespace lorascale::train
