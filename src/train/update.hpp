// One update: the leaves of this rank, the hosts' vote, one all-reduce, one optimizer call.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/facts.hpp"
#include "train/faults.hpp"
#include "train/gradient_sum.hpp"
#include "train/noise_meter.hpp"
#include "train/session.hpp"
#include "train/vote.hpp"
#include "train/world.hpp"

namespace lorascale::train {

// Milliseconds of one update on this rank, by what they went to. On a device, whatever does not
// wait for it is only the time to ask for it.
struct UpdateTimes {
  double total = 0;      // of all below but the coordinator's
  double data_wait = 0;  // for leaves that were not ready
  double compute = 0;    // forward and backward
  double noise = 0;      // keeping leaves apart and taking norms, for the noise scale
  double vote = 0;       // waiting for the slowest rank
  double reduce = 0;
  double optimizer = 0;
  double coordinator = 0;  // telling it, recording, writing what it decided
};

struct UpdateResult {
  coordinator::StepFacts facts;
  bool stop_requested = false;
  // Where a rank ran out of memory: nothing was applied, and `facts` are empty.
  std::optional<coordinator::MemoryFacts> out_of_memory;
  std::int64_t targets = 0;  // of the global batch
  std::int64_t units = 0;    // tokens, images
  // Of the global batch, before the update.
  std::vector<std::pair<std::string, double>> measures;
  UpdateTimes times;
};

// What an update takes at its peaks, everything included that is there beforehand.
struct Rehearsal {
  double compute = 0;  // bytes, in forward and backward
  double rest = 0;     // bytes, in what follows them
  double seconds = 0;  // forward and backward
};

// Yields this rank's next leaf of the update.
using NextLeaf = std::function<std::unique_ptr<data::Leaf>()>;

class Updater {
 public:
  // `session` and `faults` must outlive it.
  Updater(World& world, const Session& session, FaultInjector& faults);

  // Does all that follows the vote of an update of `leaves` leaves with a gradient that changes
  // nothing (warm_up.cpp), the first time it is called. Collective; Error(kBadConfig) on all ranks
  // where memory does not suffice. On a device, the first run() begins with it.
  void warm_up(std::int64_t leaves);

  // `mine`: the leaves that this rank contributes. `ballot` is asked after they are computed.
  UpdateResult run(const coordinator::StepPlan& plan, const coordinator::LeafRange& mine,
                   const NextLeaf& next_leaf, const std::function<Ballot()>& ballot);

  // One forward and backward of `leaf` with all that an update of `leaves` leaves, `mine` of them
  // on this rank, holds beside it, and then what the rest of it asks for. No collective, no change
  // but to the gradient, which every update begins anew. Throws where memory runs out.
  Rehearsal rehearse(const data::Leaf& leaf, std::int64_t leaves,
                     const coordinator::LeafRange& mine);

 private:
  at::Tensor begin(std::int64_t leaves, const optim::Hyperparameters& hyper, std::int64_t updates);
  void reserve_for_the_rest();
  [[nodiscard]] std::vector<coordinator::GroupNorms> noise_facts(const at::Tensor& table,
                                                                 const at::Tensor& whole) const;
  void agree_on_times(const coordinator::LeafRange& mine, const UpdateTimes& times,
                      coordinator::StepFacts* facts);
  void accumulate(const data::Leaf& leaf, std::int64_t index, at::Tensor& leaf_facts,
                  UpdateTimes& times);
  void accumulate_all(const coordinator::LeafRange& mine, const NextLeaf& next_leaf,
                      at::Tensor& leaf_facts, UpdateTimes& times);

  // Where the leaf table keeps what not every run has; widths may be 0.
  struct Columns {
    std::int64_t noise = 0;       // norms
    std::int64_t measures = 0;    // pairs of sums
    std::int64_t statistics = 0;  // of the model
  };
  void read_measures(const at::Tensor& sums, UpdateResult* result) const;

  World& world_;
  models::Model& model_;
  adapters::Adapter& adapter_;
  adapters::TrainableParameters& parameters_;
  optim::Optimizer& optimizer_;
  FaultInjector& faults_;
  // Whether the coordinator wants times that all ranks agree on, at the price of a collective more;
  // those of the first update are not typical.
  bool measures_times_;
  bool first_ = true;
  bool warm_ = false;  // whether warm_up() and run() have been
  bool ran_ = false;
  std::unique_ptr<GradientSum> gradient_sum_;
  std::optional<NoiseMeter> noise_;
  Columns columns_;
  double clip_norm_;
};

}  // namespace lorascale::train
