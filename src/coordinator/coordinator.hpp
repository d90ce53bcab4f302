// The coordinator: a pure, single-threaded state machine, (State, Facts) -> (State, Decisions). It
// knows no MPI, CUDA, files, clock or libtorch; the trainer reports facts and obeys. The same facts
// give the same decisions, log and state hash on every rank.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/gradient_noise.hpp"
#include "coordinator/leaf_choice.hpp"
#include "coordinator/recipe.hpp"

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
std::string_view name_of(AsideMemoryFacts::Task task);

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

class Coordinator {
 public:
  // Throws Error(kBadConfig) where the recipe contradicts itself, with the nearest one that works.
  Coordinator(Recipe recipe, int world_size);
  ~Coordinator();
  Coordinator(Coordinator&&) noexcept;
  Coordinator& operator=(Coordinator&&) noexcept;

  // The next update, or nothing once the run is over.
  [[nodiscard]] std::optional<StepPlan> next_step() const;
  [[nodiscard]] std::optional<StopReason> stop_reason() const;
  [[nodiscard]] const Recipe& recipe() const;
  [[nodiscard]] int world_size() const;
  [[nodiscard]] std::int64_t samples_seen() const;
  // How far the schedule and the budget are: samples_seen(), or adascale's gain-adjusted samples.
  [[nodiscard]] double tau() const;
  // Nothing is known where the recipe's noise horizon is 0 or the facts carry no norms.
  [[nodiscard]] NoiseReport noise() const;
  [[nodiscard]] std::int64_t steps_done() const;
  // Not finite or without a target, and therefore not applied; both counts are contained in those
  // above, for their samples are gone.
  [[nodiscard]] std::int64_t steps_skipped() const;
  [[nodiscard]] std::int64_t samples_skipped() const;
  [[nodiscard]] double elapsed_minutes()
      const;  // of the run as last reported, over all its resumed parts
  [[nodiscard]] std::int64_t batch() const;           // B in force for the next update
  [[nodiscard]] std::int64_t steps_expected() const;  // of the whole run, at the present batch

  // Facts of the update that next_step() named; any other step is a bug of the caller.
  void on_step(const StepFacts& facts);
  // The update that next_step() named is to be done again, in smaller leaves: next_step() names it
  // with the same samples, batch and rates. False where it has failed twice in leaves of one.
  bool on_out_of_memory(const MemoryFacts& facts);
  // These log what they are told and change nothing else.
  void on_aside_out_of_memory(const AsideMemoryFacts& facts);  // its step is steps_done()
  void on_leaf_measured(const LeafFacts& facts);
  // True when this validation is the best so far. Its step is steps_done().
  bool on_evaluation(const EvaluationFacts& facts);
  void on_movement(const MovementFacts& facts);  // its step is steps_done()
  // All of the run so far, in order.
  [[nodiscard]] const std::vector<Advice>& advice_given() const;
  [[nodiscard]] std::optional<double> best_validation_loss() const;
  [[nodiscard]] std::int64_t best_validation_step() const;  // -1: none yet

  // Whether the run has diverged and may go back: the caller gives parameters and optimizer back
  // what they were at the newest checkpoint and hands its state() to recover(). Until then
  // stop_reason() is kDiverged.
  [[nodiscard]] bool recovery_due() const;
  // The step of the checkpoint that the latest recovery went back to. While it still is the newest,
  // going there was in vain, for what diverges is in it already: the one before it is due.
  [[nodiscard]] std::optional<std::int64_t> recovered_step() const;
  // Everything that follows from the facts is as in `state`, of this run's recipe; log, leaf size
  // and minutes go on. From here on the rates are halved, after a rise (recovery.hpp). Errors as of
  // restore(), and then nothing has changed.
  void recover(const std::string& state);
  [[nodiscard]] std::int64_t recoveries() const;  // so far
  // Whether the latest update was an outlier or not finite. A checkpoint of now would be a bad
  // place to go back to.
  [[nodiscard]] bool in_trouble() const;

  // Decisions taken since the last call, in order. Take and write them before state() is saved: the
  // state says how many there were, not what they said.
  std::vector<Decision> take_decisions();

  // How many facts of any kind were reported in all, each resume counted as one: how many lines of
  // an event record (replay.hpp) lead to this state.
  [[nodiscard]] std::int64_t events() const;

  // Versioned JSON. restore() checks that the recipe agrees with the one the state was made under
  // and throws Error(kBadConfig) that lists each difference. World size, leaf size and minutes may
  // change, and what lies ahead where no rate that was used depends on it: a longer budget, or one
  // leg more that begins where the run is (continuation.hpp). The rates of
  // the last update are computed again and compared bit for bit; Error(kBadInput) where they differ
  // or the state is damaged.
  [[nodiscard]] std::string state() const;
  static Coordinator restore(Recipe recipe, int world_size, const std::string& state);
  // The recipe of a saved state, and where its schedule stands: in samples, under adascale in tau.
  struct SavedTerms {
    Recipe recipe;
    double position = 0;
  };
  static SavedTerms saved_terms(const std::string& state);
  // The recipe's leaf of a saved state.
  static std::int64_t saved_leaf_size(const std::string& state);
  // Equal on all ranks; independent of world size, leaf size and time. (Norms of leaves, where they
  // are measured, are facts that follow from the leaf size.) Not so under batch policy goodput,
  // whose decisions follow measured times, leaves and ranks: there they are part of what the hash
  // covers, and the same record gives the same hash again. Nor where the recipe lets the batch
  // follow the ranks, after a resume on another number of them.
  [[nodiscard]] std::uint64_t state_hash() const;

 private:
  struct Impl;
  explicit Coordinator(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace lorascale::coordinator
