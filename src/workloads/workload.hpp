// A workload is a kind of training: what a sample is, which model learns from it, what is shown of
// the result. It owns data sets and model; the trainer knows leaves, sums, parameters and words,
// and a workload knows what they mean. One folder per kind, and a row in workload_table.cpp
// (docs/extending.md). Nobody outside src/workloads asks which kind it is.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "adapters/adapter.hpp"
#include "config/run_config.hpp"
#include "coordinator/measure.hpp"
#include "coordinator/recipe.hpp"
#include "data/dataset.hpp"
#include "models/model.hpp"
#include "models/weight_place.hpp"
#include "prepare/preparation.hpp"

namespace lorascale::workloads {

// What people are told in a kind's own terms.
struct Words {
  std::string unit;        // what Leaf::units counts: "token"
  std::string rate;        // its throughput on the progress line: "tok/s"
  std::string less;        // what makes a sample take less memory, for a list of remedies
  std::string no_targets;  // of a data set in which nothing counts, with the remedy
  // Why results follow from the size of leaves beyond their rounding; empty: they do not.
  std::string leaf_matters{};
  // Leaves of multiples of it are alike all the same; 0: no two sizes are.
  std::int64_t leaf_group = 0;

  [[nodiscard]] bool leaves_differ(std::int64_t one, std::int64_t other) const {
    const bool alike = leaf_group > 0 && one % leaf_group == 0 && other % leaf_group == 0;
    return !leaf_matters.empty() && one != other && !alike;
  }
};

// What a run shows of its model now and then.
class Preview {
 public:
  Preview() = default;
  Preview(const Preview&) = delete;
  Preview& operator=(const Preview&) = delete;
  virtual ~Preview() = default;

  struct Picture {
    std::string png;  // a whole file; empty: there is none
    std::int64_t height = 0, width = 0;
  };
  struct Item {
    std::string name;  // of its file in samples/, after the step; may be empty where there is one
    std::string text;
    Picture picture{};  // what the text tells of
  };
  // With the weights as they are; on one rank alone.
  virtual std::vector<Item> make() = 0;
  // Once more when a run has ended and its results are in its folder: what is worth a longer look,
  // each handed over when it is made, and numbers for the advisor. The weights stay as they are.
  using Show = std::function<void(const Item&)>;
  virtual std::vector<coordinator::Measure> make_last(const Show& show) {
    static_cast<void>(show);
    return {};
  }
};

// What a rank does of the filling of caches.
struct CacheShare {
  int rank = 0, ranks = 1;
  std::function<bool()> stop;  // asked between two samples
};
struct CacheReport {
  std::int64_t looked_at = 0;        // samples
  std::int64_t made = 0;             // values that were not there
  std::vector<std::string> folders;  // where they are; empty: nothing is kept
};

class Workload {
 public:
  Workload() = default;
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;
  virtual ~Workload() = default;

  virtual models::Model& model() = 0;
  [[nodiscard]] virtual const data::Dataset& train() const = 0;
  [[nodiscard]] virtual const data::Dataset* validation() const = 0;  // may be null
  virtual Preview* preview() = 0;                                     // null: nothing is shown
  [[nodiscard]] virtual const Words& words() const = 0;

  // Tells base models apart, as Dataset::fingerprint() does data.
  [[nodiscard]] virtual std::string model_fingerprint() const = 0;
  // Samples of a leaf beyond which products are as fast as they get.
  [[nodiscard]] virtual std::int64_t enough_samples() const = 0;
  // Sets what the recipe says of the data beyond rows and targets, for people and the advisor.
  virtual void describe(coordinator::Recipe& recipe) const { static_cast<void>(recipe); }
  // What a user should know before a run begins although nothing is wrong with it.
  [[nodiscard]] virtual std::vector<std::string> warnings() const = 0;
  // Lines of `plan` about what is learnt from, beyond rows: "targets   1,024 tokens ...".
  [[nodiscard]] virtual std::vector<std::string> plan_lines() const { return {}; }
  // Has results of frozen parts on disk before they are asked for. Collective in nothing: ranks do
  // not wait for each other, and what is missing is computed when it is wanted.
  virtual CacheReport fill_caches(const CacheShare& share) {
    static_cast<void>(share);
    return {};
  }
  [[nodiscard]] virtual adapters::ExportContext export_context() const = 0;
};

// Opens and checks data and model on this rank. `files` are those of config.data (prepare/). Where
// the configuration leaves something to be decided by the data, it is set there. Weights in common
// memory are whole when all processes have opened theirs.
std::unique_ptr<Workload> open_workload(config::RunConfig& config, const prepare::DataFiles& files,
                                        const models::WeightPlace& place);

// Sets what the kind of model has as defaults of its own, but for what the user has `given` (paths
// of options).
void take_defaults(const std::set<std::string>& given, config::RunConfig& config);

// Error(kBadInput) where a data file of the configuration must be made before a run (a script does)
// and is none yet.
void require_data_files(const config::RunConfig& config);

// A base model by the headers of its files, for those that share its memory; of a kind that is not
// shared, null.
struct BaseModel {
  std::unique_ptr<models::Model> shapes;  // without memory
  std::string fingerprint;                // Workload::model_fingerprint()
};
BaseModel read_base_model(const config::ModelSection& model);

// A line for each setting that means nothing to the workload of this configuration.
std::vector<std::string> unused_settings(const config::RunConfig& config);

// What an adapter of the configuration sees of a model.
adapters::AdaptedModel adapted_model(models::Model& model, const config::RunConfig& config);

}  // namespace lorascale::workloads
