#include "train/trainer.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "adapters/full_export.hpp"
#include "adapters/peft_format.hpp"
#include "base/logging.hpp"
#include "config/reader.hpp"
#include "config/resolved.hpp"
#include "io/checkpoint_folder.hpp"
#include "io/checkpoint_retention.hpp"
#include "io/durable_file.hpp"
#include "models/llama/generate.hpp"
#include "train/averaged_weights.hpp"
#include "train/evaluator.hpp"
#include "train/failure_report.hpp"
#include "train/leaf_probe.hpp"
#include "train/signals.hpp"
#include "train/snapshot.hpp"
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

Trainer::Trainer(World& world, Session& session)
    : world_(world),
      session_(session),
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

void Trainer::open_run_folder(Watchdog& watchdog) {
  root_alone(world_.host, [&] {
    lock_ = std::make_unique<io::RunLock>(folder_);
    io::remove_leftovers(folder_ / "checkpoints");
    remove_failure_reports(folder_);
    log_to_file(folder_ / "log.txt");
  });
  together(world_.host, [&] {
    if (!world_.is_root()) {
      log_to_file(folder_ / ("log-rank" + std::to_string(world_.host.rank()) + ".txt"));
    }
  });
  watchdog.on_hang([folder = folder_, place = Place{world_.host.rank(), world_.host_name}](
                       const std::string& message) {
    write_failure_report(folder, place, ExitCode::kHang, message);
  });
}

void Trainer::require_same_run(const SnapshotFields& saved) const {
  const auto refuse = [&](const std::string& what) {
    throw_bad_config(folder_.string() + " belongs to another run: " + what +
                     "; choose another run.output_dir, or run as " +
                     (folder_ / "config.yaml").string() + " says");
  };
  const auto before = config::read_config_text(saved.config, "the checkpoint").config;
  const auto changed = config::differences(before, session_.config, config::Scope::kFixedOnResume);
  if (!changed.empty()) {
    refuse(config::to_string(changed));
  }
  if (saved.data_fingerprint != session_.train->fingerprint()) {
    refuse("the training set " + session_.config.data.train + " is not the one it began with");
  }
  if (saved.model_fingerprint != session_.model_fingerprint) {
    refuse("the base model " + session_.config.model.path + " is not the one it began with");
  }
}

void Trainer::resume_or_start() {
  std::optional<SnapshotFields> snapshot;
  if (session_.config.run.resume == "auto") {
    snapshot = load_newest_snapshot(world_, folder_ / "checkpoints", *session_.trainable.parameters,
                                    *session_.optimizer,
                                    [&](const SnapshotFields& saved) { require_same_run(saved); });
  } else {
    root_alone(world_.host, [&] {
      if (!io::list_checkpoints(folder_ / "checkpoints").empty()) {
        throw_bad_config(
            folder_.string() + " holds checkpoints of an earlier run and run.resume is " +
            session_.config.run.resume + "; choose another run.output_dir or remove it");
      }
    });
  }
  std::optional<coordinator::LeafFacts> leaf;
  if (!session_.config.batch.micro) {
    leaf =
        settle_leaf(world_, session_, updater_, snapshot ? &snapshot->coordinator_state : nullptr);
    evaluation_leaf_ = session_.recipe.leaf_size;
  }
  together(world_.host, [&] {
    if (!snapshot) {
      coordinator_.emplace(session_.recipe, world_.host.size());
      return;
    }
    coordinator_ = coordinator::Coordinator::restore(session_.recipe, world_.host.size(),
                                                     snapshot->coordinator_state);
    saved_step_ = snapshot->step;
    minutes_before_ = coordinator_->elapsed_minutes();
    if (world_.is_root()) {
      spdlog::info("resumed at step {} ({} samples), saved by {} rank(s)", snapshot->step,
                   snapshot->samples, snapshot->world_size);
    }
  });
  root_alone(world_.host, [&] {
    io::write_file_atomically(folder_ / "config.yaml",
                              std::string_view(config::write_resolved(session_.config)));
    const auto decisions = coordinator_->take_decisions();
    const auto first = decisions.empty() ? 0 : decisions.front().sequence;
    // A start from nothing keeps nothing: not even the line of step 0 of a run that died early.
    log_ = std::make_unique<RunLog>(folder_, snapshot ? coordinator_->steps_done() : -1, first);
    events_ = open_event_record(folder_ / "events.jsonl", *coordinator_, snapshot.has_value());
    log_->write(decisions);
    for (const auto& decision : decisions) {
      say(decision);
    }
    const auto& recipe = session_.recipe;
    progress_ = std::make_unique<Progress>(recipe.budget_samples == coordinator::kNoSampleLimit
                                               ? std::nullopt
                                               : std::optional(coordinator_->steps_expected()),
                                           recipe.budget_minutes);
  });
  if (leaf) {
    leaf->step = coordinator_->steps_done();
    coordinator_->on_leaf_measured(*leaf);
    record(*leaf);
    write_decisions();
  }
}

void Trainer::write_decisions() {
  const auto decisions = coordinator_->take_decisions();
  if (!world_.is_root()) {
    return;
  }
  log_->write(decisions);
  for (const auto& decision : decisions) {
    progress_->clear();
    say(decision);
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
  const AveragedWeights averaged(session_.average, *session_.trainable.parameters);
  const double loss = evaluate(world_, *session_.model, *session_.validation,
                               session_.config.evaluate.max_samples, evaluation_leaf_, faults_);
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
  models::llama::GenerationSettings settings{section.max_tokens, section.temperature, section.top_p,
                                             session_.config.run.seed,
                                             end_ids(*session_.model, session_.train.get())};
  std::string text;
  for (const auto& prompt : section.prompts) {
    const auto ids = session_.train->encode_prompt(prompt);
    const auto continuation =
        session_.train->decode(models::llama::generate(*session_.model, ids, settings));
    ++settings.seed;  // or chance would carry every prompt to the same words
    text += "> " + prompt + "\n" + prompt + continuation + "\n\n";
  }
  return text;
}

void Trainer::show_samples(const std::string& when) {
  if (session_.config.sample.prompts.empty() || session_.config.sample.every.value == 0) {
    return;
  }
  const AveragedWeights averaged(session_.average, *session_.trainable.parameters);
  root_alone(world_.host, [&] {
    bool out_of_memory = false;
    std::string text;
    const auto error = attempt(
        [&] {
          faults_.reach(Phase::kSample);
          text = continued_prompts();
        },
        &out_of_memory);
    if (error) {
      throw Error(*error);
    }
    if (out_of_memory) {
      progress_->clear();
      spdlog::warn("sampling ran out of memory and is left out; training goes on");
      release_cached_memory(world_.place);
      return;
    }
    log_->write_samples(coordinator_->steps_done(), "```\n" + text + "```");
    std::filesystem::create_directories(folder_ / "samples");
    io::write_file_atomically(folder_ / "samples" / (when + ".txt"), std::string_view(text));
  });
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

void Trainer::export_result(const std::filesystem::path& folder, Tolerance* tolerance) {
  write_alone(tolerance, [&] {
    if (session_.trainable.is_full()) {
      adapters::write_full_model(folder, session_.model->parameter_slots(),
                                 session_.config.model.path);
    } else {
      adapters::write_peft_adapter(folder, session_.trainable.modules,
                                   session_.model->linear_groups(), session_.trainable.lora,
                                   *session_.trainable.parameters, session_.config.model.path);
    }
  });
}

// The average where there is one, and then what was trained last beside it.
void Trainer::export_final() {
  const std::string name = session_.trainable.is_full() ? "model" : "adapter";
  bool differs = false;
  {
    const AveragedWeights averaged(session_.average, *session_.trainable.parameters);
    differs = averaged.in_place();
    export_result(folder_ / name, nullptr);
  }
  if (differs) {
    export_result(folder_ / (name + "-last"), nullptr);
  } else if (session_.average != nullptr && world_.is_root()) {
    progress_->clear();
    spdlog::warn("the run ended before average.start: {}/ holds the last weights, no average",
                 name);
  }
}

void Trainer::save_checkpoint(bool must_succeed, io::Existing existing) {
  if (saved_step_ == coordinator_->steps_done()) {
    return;
  }
  write_alone(must_succeed ? nullptr : &checkpoint_writes_, [&] {
    save_snapshot(folder_ / "checkpoints",
                  {coordinator_->steps_done(), coordinator_->samples_seen(), world_.host.size(),
                   config::write_resolved(session_.config), session_.train->fingerprint(),
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

// The same update in smaller leaves, until it fits on every rank.
coordinator::StepPlan Trainer::shrink(const coordinator::MemoryFacts& facts) {
  release_cached_memory(world_.place);
  if (!coordinator_->on_out_of_memory(facts)) {
    save_checkpoint(/*must_succeed=*/true);
    const auto message = does_not_fit(facts) + "; what was trained so far is in " +
                         (folder_ / "checkpoints").string();
    together(world_.host, [&] { throw_bad_config(message); });
  }
  record(facts);
  write_decisions();
  return *coordinator_->next_step();
}

// An update without targets changes nothing; a run of such updates is no training.
void Trainer::count_targets(const coordinator::StepPlan& plan, std::int64_t targets) {
  if (targets == 0 && targets_seen_ == 0 && world_.is_root()) {
    progress_->clear();
    spdlog::warn(
        "update {} has no target: either data.sequence_length cuts the answers off, or the loss "
        "mask of {} is empty",
        plan.step, session_.config.data.train);
  }
  targets_seen_ += targets;
  if (targets_seen_ == 0 && !coordinator_->next_step()) {
    together(world_.host, [&] {
      throw_bad_input("nothing was trained: no token of " + session_.config.data.train +
                      " that an update saw counts as a target; raise data.sequence_length, or "
                      "check its loss_mask");
    });
  }
}

void Trainer::train_one(coordinator::StepPlan plan) {
  const auto before = progress();
  auto result = attempt_update(plan);
  while (result.out_of_memory) {
    plan = shrink(*result.out_of_memory);
    result = attempt_update(plan);
  }
  coordinator_->on_step(result.facts);
  record(result.facts);
  count_targets(plan, result.targets);
  stop_requested_ = result.stop_requested;
  const auto after = progress();
  MetricsLine line = metrics_line(plan, result);
  const bool over = !coordinator_->next_step().has_value();
  if (evaluate_cadence_.due(before, after) || (over && !coordinator_->recovery_due())) {
    line.val_loss = validate();
  }
  if (line.val_loss || over || after.steps % kMovementEvery == 0) {
    report_movement();
  }
  write_decisions();
  line.peak_memory = peak_memory_.look();
  if (world_.is_root()) {
    log_->write(line);
    progress_->update(line, coordinator_->steps_expected(), coordinator_->elapsed_minutes());
  }
  if (sample_cadence_.due(before, after) && !over) {
    show_samples(fmt::format("step-{:08d}", after.steps));
  }
  // A diverged state is not worth going on from: the checkpoint before it stays the newest.
  const bool diverged = coordinator_->stop_reason() == coordinator::StopReason::kDiverged;
  // Nor is one to go back to that may be about to diverge.
  checkpoint_owed_ = checkpoint_owed_ || checkpoint_cadence_.due(before, after);
  const bool doubtful = session_.recipe.max_recoveries > 0 && coordinator_->in_trouble();
  if (!diverged && ((checkpoint_owed_ && !doubtful) || over || stop_requested_)) {
    save_checkpoint(/*must_succeed=*/over || stop_requested_);
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

void Trainer::record_failure(ExitCode code, const std::string& message) {
  write_failure_report(folder_, {world_.host.rank(), world_.host_name}, code, message);
  if (world_.is_root()) {
    // Failing to say it again must not hide what happened.
    const auto ignored = attempt([&] {
      write_status(folder_, "failed", code, coordinator_ ? coordinator_->steps_done() : 0,
                   lock_->generation(), message);
    });
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

void Trainer::finish_status(const std::string& outcome, ExitCode code, const std::string& message) {
  if (world_.is_root()) {
    progress_->clear();
    write_status(folder_, outcome, code, coordinator_->steps_done(), lock_->generation(), message);
    spdlog::log(code == ExitCode::kDiverged ? spdlog::level::err : spdlog::level::info, "{}",
                message);
    for (const auto& advice : coordinator_->advice_given()) {
      spdlog::warn("advice of step {}: {}", advice.step, advice.text);
    }
  }
  world_.host.barrier();  // nobody leaves before everything durable is written
}

ExitCode Trainer::finish() {
  peak_memory_.report(world_);
  const auto steps = coordinator_->steps_done();
  if (!coordinator_->stop_reason()) {
    finish_status(
        "stopped", ExitCode::kStopped,
        fmt::format("stopped on request after step {}; the checkpoint is saved, run again to go on",
                    steps));
    return ExitCode::kStopped;
  }
  if (coordinator_->stop_reason() == coordinator::StopReason::kDiverged) {
    finish_status("failed", ExitCode::kDiverged, divergence_message());
    return ExitCode::kDiverged;
  }
  export_final();
  show_samples("after");
  root_alone(world_.host, [&] {
    log_->require_complete();
    if (events_) {
      events_->require_complete();
    }
    if (best_writes_.lost) {
      throw Error(*best_writes_.lost);
    }
  });
  finish_status("done", ExitCode::kDone, fmt::format("done after {} steps", steps));
  return ExitCode::kDone;
}

}  // namespace lorascale::train
