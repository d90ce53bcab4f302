// One update: the leaves of this rank, the hosts' vote, one all-reduce, one optimizer call.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "adapters/parameters.hpp"
#include "coordinator/coordinator.hpp"
#include "data/leaf.hpp"
#include "models/model.hpp"
#include "optim/optimizer.hpp"
#include "train/vote.hpp"
#include "train/world.hpp"

namespace lorascale::train {

// Milliseconds of one update on this rank, by what they went to.
struct UpdateTimes {
  double total = 0;
  double data_wait = 0;  // for leaves that were not ready
  double compute = 0;    // forward and backward
  double vote = 0;       // waiting for the slowest rank
  double reduce = 0;
  double optimizer = 0;
};

struct UpdateResult {
  coordinator::StepFacts facts;
  bool stop_requested = false;
  std::int64_t targets = 0;  // of the global batch
  std::int64_t tokens = 0;
  UpdateTimes times;
};

// Yields this rank's next leaf of the update.
using NextLeaf = std::function<data::TokenLeaf()>;

class Updater {
 public:
  Updater(World& world, models::Model& model, adapters::TrainableParameters& parameters,
          optim::Optimizer& optimizer, std::uint64_t seed, double clip_norm);

  // `leaves`: how many this rank contributes. `ballot` is asked after the leaves are computed.
  UpdateResult run(const coordinator::StepPlan& plan, std::int64_t leaves,
                   const NextLeaf& next_leaf, const std::function<Ballot()>& ballot);

 private:
  void accumulate(std::int64_t leaves, const NextLeaf& next_leaf, at::Tensor& sums,
                  UpdateTimes& times);

  World& world_;
  models::Model& model_;
  adapters::TrainableParameters& parameters_;
  optim::Optimizer& optimizer_;
  std::uint64_t seed_;
  double clip_norm_;
};

}  // namespace lorascale::train
