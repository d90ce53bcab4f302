#include "train/validation.hpp"

#include <fmt/format.h>

#include <vector>

#include "train/averaged_weights.hpp"

namespace lorascale::train {
namespace {

std::string text_of(std::int64_t step, const Evaluation& evaluation, bool best) {
  std::string text = fmt::format("validation after step {}: loss {:.4f}", step, evaluation.loss);
  for (const auto& [name, value] : evaluation.measures) {
    text += fmt::format(", {} {:.4f}", name, value);
  }
  return text + (best ? " (best)" : "");
}

// Of each trained tensor.
std::vector<float> norms_of(const adapters::TrainableParameters& parameters) {
  std::vector<float> norms;
  for (const auto& entry : parameters.entries()) {
    norms.push_back(parameters.view(parameters.master(), entry).norm().item<float>());
  }
  return norms;
}

}  // namespace

Validation::Validation(Run& run, Checkpointer& checkpoints, Results& results)
    : run_(run),
      checkpoints_(checkpoints),
      results_(results),
      cadence_(run.session.config.evaluate.every, run.session.units),
      leaf_size_(run.session.recipe.leaf_size) {}

std::optional<Evaluation> Validation::run() {
  const auto& session = run_.session;
  if (session.workload->validation() == nullptr || session.config.evaluate.every.value == 0) {
    return std::nullopt;
  }
  // Until its end: what is validated is what best/ gets.
  std::optional<AveragedWeights> averaged;
  averaged.emplace(session.optimizer->average(), session.parameters());
  const auto evaluation =
      evaluate(run_.world, session, leaf_size_, run_.faults,
               [&](const auto& facts) { run_.tell_aside_out_of_memory(facts); });
  const auto step = run_.coordinator->steps_done();
  if (!evaluation) {
    averaged.reset();  // a checkpoint holds the weights that are trained
    checkpoints_.give_up(fmt::format(
        "validation after step {} runs out of memory even in leaves of one sample", step));
  }
  const bool best = run_.tell(coordinator::EvaluationFacts{step, evaluation->loss});
  run_.record.say(spdlog::level::info, text_of(step, *evaluation, best));
  if (run_.world.is_root()) {
    run_.record.write_norms(step, norms_of(session.parameters()));
  }
  // The untrained start is no result worth keeping.
  if (best && step > 0) {
    results_.write_best();
  }
  return evaluation;
}

}  // namespace lorascale::train
