// Everything a run consists of before its first update: workload, adapter, optimizer and recipe,
// opened and checked on all ranks. `plan` stops here; the trainer goes on.
#pragma once

#include <memory>

#include "adapters/adapter.hpp"
#include "config/run_config.hpp"
#include "coordinator/recipe.hpp"
#include "data/leaf_stream.hpp"
#include "optim/optimizer.hpp"
#include "prepare/preparation.hpp"
#include "train/shared_base.hpp"
#include "train/trained_state.hpp"
#include "train/world.hpp"
#include "workloads/workload.hpp"

namespace lorascale::train {

struct Session {
  config::RunConfig config;
  prepare::DataFiles files;  // behind config.data
  SharedBase base;           // outlives the model
  std::unique_ptr<workloads::Workload> workload;
  std::unique_ptr<adapters::Adapter> adapter;
  std::unique_ptr<optim::Optimizer> optimizer;
  UnitContext units;
  coordinator::Recipe recipe;

  [[nodiscard]] models::Model& model() const { return workload->model(); }
  [[nodiscard]] adapters::TrainableParameters& parameters() const { return adapter->parameters(); }
  [[nodiscard]] TrainedState state() const {
    return {parameters(), *optimizer, model().statistics()};
  }
  // What is random in samples that no epoch is made of.
  [[nodiscard]] SampleKey key() const { return {config.run.seed, 0}; }
  // The leaves of the run, from its start.
  [[nodiscard]] data::LeafStream leaves() const {
    return {workload->train(), config.run.seed, config.data.shuffle};
  }
};

// Collective: every rank opens its files; a failure on one ends all with its message, and files
// that differ between ranks are refused. `files` are those of config.data (prepare_data).
Session open_session(World& world, const config::RunConfig& config,
                     const prepare::DataFiles& files);

// The optimizer of the run, with an average of the weights where it keeps one.
std::unique_ptr<optim::Optimizer> make_optimizer(const config::RunConfig& config,
                                                 const adapters::TrainableParameters& parameters);

// What a session has besides its workload and adapter, of a run on so many ranks: for
// open_session(), and for tests with kinds of their own.
void complete_session(Session& session, int world_size);

// The recipe of the session's run on `world_size` ranks, with what it says of data and adapter.
coordinator::Recipe recipe_of(const Session& session, int world_size, UnitContext* units = nullptr);

}  // namespace lorascale::train
