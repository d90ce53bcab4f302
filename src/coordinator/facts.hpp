// What goes into the coordinator and what comes out of it: plans of updates, the facts that the
// trainer reports, decisions and advice. Plain values. Positions and batches are in samples.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/measure.hpp"
#include "coordinator/memory/leaf_choice.hpp"
#include "coordinator/noise/gradient_noise.hpp"

namespace lorascale::coordinator {

// What the next update is. Positions count samples over the whole run: epoch = position /
// samples_per_epoch. An update never crosses the end of an epoch or of the budget, so its samples
// may be fewer than B. (Under adascale the budget is reached in tau, and cuts no update.)
struct StepPlan {
  std::int64_t step = 0;            // from 1; counts attempts that consumed samples
  std::int64_t first_position = 0;  // samples before this update
  std::int64_t samples = 0;         // n, of this update
  std::int64_t leaf_size = 0;       // b
  std::int64_t leaves = 0;          // ceil(n / b); the last one may be short
  double epoch = 0;                 // first_position / samples_per_epoch
  double lr = 0;
  double lr_multiplier = 0;  // f(n / B0), capped and on its ramp (rates.hpp); adascale's gain^p
  double tau = 0;            // where the schedule stands, in samples: first_position, or adascale's
  double tau_advance = 0;    // what this update adds: n, or adascale's gain times B0
  double beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  double ema_rho = 0;  // averaged weights keep this share of themselves; 0: no average is kept
  bool swa = false;    // the weights after this update enter their equal mean
};

// The contiguous leaves [begin, end) of `rank`; counts differ by at most one.
struct LeafRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
LeafRange leaves_of_rank(std::int64_t leaves, int rank, int world_size);

struct StepFacts {
  std::int64_t step = 0;
  double loss = 0;             // of the update's global batch, before the update
  double grad_norm = 0;        // before clipping
  bool applied = true;         // false: not finite or without a target, skipped
  double elapsed_minutes = 0;  // of the run, rank 0's clock; agreed on by all ranks

  // Of this update, agreed on by all ranks: the whole of it, and one leaf of it on average. 0: not
  // measured, or not typical, as the first update after a start. Batch policy goodput alone reads
  // them.
  double step_seconds = 0;
  double leaf_seconds = 0;

  std::vector<GroupNorms> noise{};  // empty: nothing measured

  // No token of the update counts as a target: it has no loss and no gradient, both of which are
  // not finite here, and `applied` is false. It speaks neither for nor against the run.
  bool without_targets = false;

  // Standard error of `loss` as an estimate over all data, from the scatter among the update's
  // leaves; 0 where it had one leaf only. For the advisor.
  double loss_error = 0;
};

// An update ran out of memory before anything of it was applied.
struct MemoryFacts {
  std::int64_t step = 0;   // that was attempted
  std::int64_t ranks = 0;  // how many ranks had too little
  std::int64_t rank = 0;   // the lowest of them
};

// Something beside the updates ran out of memory. Nothing of the run follows from it.
struct AsideMemoryFacts {
  enum class Task { kValidation, kSampling, kRecovery };
  std::int64_t step = 0;  // updates done
  Task task = Task::kValidation;
  std::int64_t ranks = 0;      // how many ranks had too little
  std::int64_t rank = 0;       // the lowest of them
  std::int64_t leaf_size = 0;  // that a validation is done again in; 0: there is none smaller
};

// Why the recipe has the leaf that it has: memory was measured on all ranks (leaf_fit.hpp), and how
// fast the leaves are (leaf_choice.hpp). The numbers, in bytes, are those of the rank that is left
// with the least; a budget of 0 is no limit.
struct LeafFacts {
  std::int64_t step = 0;        // updates done
  std::int64_t leaf_size = 0;   // the recipe's
  std::int64_t considered = 0;  // the largest leaf that was a candidate
  std::int64_t rank = 0;
  double budget = 0;
  double peak = 0;  // measured with this leaf
  double fixed = 0, per_sample = 0;
  double model = 0;  // weights alone
  // Of the leaves that fit, where the fastest was chosen; empty: the largest was.
  std::vector<LeafSpeed> speeds{};
};

struct EvaluationFacts {
  std::int64_t step = 0;
  double loss = 0;
};

// How large the adapter's change of the model is after `step` updates: |dW| / |W| of all adapted
// layers as one vector. For the advisor.
struct MovementFacts {
  std::int64_t step = 0;
  double ratio = 0;
};

// What a run's preview shows of its model after `step` updates, in numbers. For the advisor.
struct PreviewFacts {
  std::int64_t step = 0;
  std::vector<Measure> measures{};
};

// What was said to the user: a decision of kind "advice".
struct Advice {
  std::string finding;  // name; given once in a run
  std::int64_t step = 0;
  std::string text;
};

// One line of decisions.jsonl.
struct Decision {
  std::int64_t sequence = 0;
  std::int64_t step = 0;
  std::int64_t samples = 0;
  std::string kind;         // "plan", "lr", "batch", "skip", "best", ...
  std::string reason;       // a sentence with the numbers behind it
  std::string inputs;       // JSON object
  std::uint64_t chain = 0;  // digest of this entry and all before it (decision_log.hpp)
};

enum class StopReason { kBudget, kTime, kEarlyStop, kDiverged };

}  // namespace lorascale::coordinator
