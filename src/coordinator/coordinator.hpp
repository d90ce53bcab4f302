// The coordinator: a pure, single-threaded state machine, (State, Facts) -> (State, Decisions). It
// knows no MPI, CUDA, files, clock or libtorch; the trainer reports facts and obeys. The same facts
// give the same decisions, log and state hash on every rank.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/facts.hpp"
#include "coordinator/recipe.hpp"

namespace lorascale::coordinator {

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
  void on_preview(const PreviewFacts& facts);    // likewise
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
