// Shared by the tests of the trainer's parts: a linear regression behind the trainer's seams, small
// enough that a test can compute everything that follows from it on its own. One row in five has no
// target; it has measures, running statistics and a loss that is not a plain mean over samples.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/tensors.hpp"
#include "train/session.hpp"

namespace lorascale::train::test {

inline constexpr std::int64_t kWidth = 5;
inline constexpr std::int64_t kUnitsPerRow = 2;
inline constexpr double kStatisticsMove = 0.25;

struct RegressionLeaf : data::Leaf {
  at::Tensor x;        // [samples, width]
  at::Tensor y;        // [samples]
  at::Tensor targets;  // [samples] 1, or 0 where nothing is to be predicted
  void drop_targets() override { targets.zero_(); }
};

class RegressionData : public data::Dataset {
 public:
  RegressionData(std::int64_t rows, std::uint64_t seed, bool with_targets = true)
      : x_(lorascale::test::noise({rows, kWidth}, seed)),
        y_(lorascale::test::noise({rows}, seed + 1, 2)),
        targets_(at::ones({rows})) {
    for (std::int64_t row = 0; row < rows; ++row) {
      targets_[row] = with_targets && row % 5 != 4 ? 1 : 0;
    }
  }
  [[nodiscard]] const at::Tensor& x() const { return x_; }
  [[nodiscard]] const at::Tensor& y() const { return y_; }
  [[nodiscard]] const at::Tensor& targets() const { return targets_; }

  [[nodiscard]] std::int64_t rows() const override { return x_.size(0); }
  [[nodiscard]] std::int64_t targets_per_epoch() const override {
    return targets_.sum().item<std::int64_t>();
  }
  [[nodiscard]] std::unique_ptr<data::Leaf> leaf(
      const SampleKey& key, std::span<const std::int64_t> rows) const override {
    auto leaf = std::make_unique<RegressionLeaf>();
    leaf->key = key;
    leaf->sample_ids.assign(rows.begin(), rows.end());
    leaf->units = kUnitsPerRow * static_cast<std::int64_t>(rows.size());
    const at::Tensor ids = at::tensor(leaf->sample_ids, at::kLong);
    leaf->x = x_.index_select(0, ids);
    leaf->y = y_.index_select(0, ids);
    leaf->targets = targets_.index_select(0, ids);
    return leaf;
  }
  [[nodiscard]] std::vector<std::int64_t> heaviest(std::int64_t count) const override {
    return std::vector<std::int64_t>(static_cast<std::size_t>(count), 0);
  }
  [[nodiscard]] std::string fingerprint() const override { return "regression"; }
  [[nodiscard]] std::string summary() const override { return "rows of a regression"; }
  [[nodiscard]] std::string path() const override { return "regression.h5"; }

 private:
  at::Tensor x_, y_, targets_;
};

// y ~ w x + b with the loss (w x + b - y)^2 / 2. Its measures: "near", the share of targets that
// are missed by less than 1/2, and "above", the share of samples that are predicted too high.
class RegressionModel : public models::Model {
 public:
  RegressionModel()
      : weight_(lorascale::test::noise({1, kWidth}, 3)),
        bias_(lorascale::test::noise({1}, 4)),
        mean_(at::zeros({kWidth})) {}

  [[nodiscard]] std::string family() const override { return "regression"; }
  [[nodiscard]] at::Device device() const override { return at::kCPU; }
  [[nodiscard]] at::ScalarType dtype() const override { return at::kFloat; }
  std::vector<nn::Site> sites() override { return {}; }
  std::vector<nn::ParameterSlot> parameter_slots() override {
    return {{{{"weight", {1, kWidth}}}, &weight_, &weight_grad_},
            {{{"bias", {1}}}, &bias_, &bias_grad_}};
  }
  models::LeafResult accumulate(const data::Leaf& leaf) override {
    const auto& rows = dynamic_cast<const RegressionLeaf&>(leaf);
    const at::Tensor error = error_of(rows);
    const at::Tensor counted = error * rows.targets;
    weight_grad_.add_(at::mm(counted.unsqueeze(0), rows.x));
    bias_grad_.add_(counted.sum());
    auto result = result_of(rows, error);
    result.statistics = rows.x.sum(0);
    return result;
  }
  models::LeafResult evaluate(const data::Leaf& leaf) override {
    const auto& rows = dynamic_cast<const RegressionLeaf&>(leaf);
    return result_of(rows, error_of(rows));
  }
  [[nodiscard]] std::vector<std::string> measure_names() const override {
    return {"near", "above"};
  }
  [[nodiscard]] double forward_operations(const data::Leaf& leaf) const override {
    return static_cast<double>(leaf.sample_ids.size()) * 2 * kWidth;
  }
  [[nodiscard]] models::ActivationBytes activation_bytes(const data::Leaf& leaf) const override {
    return {static_cast<double>(leaf.sample_ids.size()) * 4, 0};
  }
  at::Tensor statistics() override { return mean_; }
  void move_statistics(const at::Tensor& mean, const at::Tensor& skip) override {
    ++moves;
    mean_.copy_(at::where(skip, mean_, mean_ + kStatisticsMove * (mean - mean_)));
  }

  int moves = 0;

 private:
  [[nodiscard]] at::Tensor error_of(const RegressionLeaf& rows) const {
    return at::mm(rows.x, weight_.t()).squeeze(1) + bias_ - rows.y;
  }
  static models::LeafResult result_of(const RegressionLeaf& rows, const at::Tensor& error) {
    models::LeafResult result;
    const at::Tensor counts = rows.targets.to(at::kDouble);
    result.loss_sum = (error.to(at::kDouble).square() * counts).sum() / 2;
    result.targets = rows.targets.sum().item<std::int64_t>();
    result.measures = at::stack({((error.abs() < 0.5) * counts).sum(), counts.sum(),
                                 (error > 0).sum().to(at::kDouble),
                                 at::full({}, static_cast<double>(error.size(0)), at::kDouble)})
                          .view({2, 2});
    return result;
  }

  at::Tensor weight_, bias_, mean_;
  at::Tensor weight_grad_, bias_grad_;
};

class RegressionWorkload : public workloads::Workload {
 public:
  RegressionWorkload(std::int64_t rows, bool validates_targets)
      : train_(rows, 10), validation_(23, 20, validates_targets) {}
  models::Model& model() override { return model_; }
  [[nodiscard]] const data::Dataset& train() const override { return train_; }
  [[nodiscard]] const data::Dataset* validation() const override { return &validation_; }
  workloads::Preview* preview() override { return nullptr; }
  [[nodiscard]] const workloads::Words& words() const override { return words_; }
  [[nodiscard]] std::string model_fingerprint() const override { return "regression"; }
  [[nodiscard]] std::int64_t enough_samples() const override { return 1; }
  [[nodiscard]] std::vector<std::string> warnings() const override { return {}; }
  [[nodiscard]] adapters::ExportContext export_context() const override { return {}; }

 private:
  RegressionModel model_;
  RegressionData train_, validation_;
  workloads::Words words_{"row", "rows/s", "shorter rows", "no row has a target; add some"};
};

// All weights are trained by the optimizer of the configuration, each group by its own rules.
inline Session regression_session(const config::RunConfig& config, std::int64_t rows = 301,
                                  bool validates_targets = true) {
  Session session;
  session.config = config;
  session.config.adapter.type = "full";
  session.workload = std::make_unique<RegressionWorkload>(rows, validates_targets);
  adapters::AdaptedModel model;
  model.slots = session.model().parameter_slots();
  model.file_slots = session.model().file_slots();
  session.adapter = adapters::make_adapter(session.config.adapter, model, config.run.seed);
  session.optimizer = make_optimizer(session.config, session.parameters());
  return session;
}

}  // namespace lorascale::train::test
