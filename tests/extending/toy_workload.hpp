// The template of "add a workload" (docs/extending.md): points of the plane, each of one of two
// kinds, told apart by two linear layers. A leaf, a data set, a model and a workload; nothing of
// src/train, src/coordinator or src/cli is touched.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/error.hpp"
#include "data/dataset.hpp"
#include "models/initial_values.hpp"
#include "models/model.hpp"
#include "nn/linear_group.hpp"
#include "nn/relu.hpp"
#include "nn/softmax_loss.hpp"
#include "workloads/workload.hpp"

namespace lorascale::toys {

struct PointLeaf : data::Leaf {
  std::vector<float> points;         // [samples, 2]
  std::vector<std::int32_t> labels;  // [samples] 0 or 1; -1: not a target
  void drop_targets() override { std::ranges::fill(labels, -1); }
};

// Two rings around the origin.
class PointDataset : public data::Dataset {
 public:
  explicit PointDataset(std::int64_t rows) : rows_(rows) {}

  [[nodiscard]] std::int64_t rows() const override { return rows_; }
  [[nodiscard]] std::int64_t targets_per_epoch() const override { return rows_; }
  [[nodiscard]] std::unique_ptr<data::Leaf> leaf(
      const SampleKey& key, std::span<const std::int64_t> rows) const override {
    auto leaf = std::make_unique<PointLeaf>();
    leaf->key = key;
    leaf->sample_ids.assign(rows.begin(), rows.end());
    leaf->units = static_cast<std::int64_t>(rows.size());
    for (const auto row : rows) {
      const auto kind = static_cast<std::int32_t>(row % 2);
      const double angle = 2.4 * static_cast<double>(row), radius = kind == 0 ? 0.5 : 1.5;
      leaf->points.push_back(static_cast<float>(radius * std::cos(angle)));
      leaf->points.push_back(static_cast<float>(radius * std::sin(angle)));
      leaf->labels.push_back(kind);
    }
    return leaf;
  }
  [[nodiscard]] std::vector<std::int64_t> heaviest(std::int64_t count) const override {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(std::min(count, rows_)));
    std::iota(rows.begin(), rows.end(), 0);  // all are alike
    return rows;
  }
  [[nodiscard]] std::string fingerprint() const override {
    return "points-" + std::to_string(rows_);
  }
  [[nodiscard]] std::string summary() const override { return std::to_string(rows_) + " points"; }
  [[nodiscard]] std::string path() const override { return "points"; }

 private:
  std::int64_t rows_;
};

// logits = W2 relu(W1 x + b1) + b2, backward by hand.
class PointModel : public models::Model {
 public:
  explicit PointModel(std::uint64_t seed) {
    const auto fill = [&](nn::LinearGroup& linear, const char* name, std::int64_t in,
                          std::int64_t out) {
      linear.members = {{name, out, 0}};
      linear.weight = at::empty({out, in});
      linear.bias = at::zeros({out});
      models::fill_uniform(linear.weight, 1 / std::sqrt(static_cast<double>(in)), seed, name);
    };
    fill(first_, "first", 2, 16);
    fill(second_, "second", 16, 2);
  }

  [[nodiscard]] std::string family() const override { return "points"; }
  [[nodiscard]] at::Device device() const override { return at::kCPU; }
  [[nodiscard]] at::ScalarType dtype() const override { return at::kFloat; }
  std::vector<nn::Site> sites() override { return {first_.sites()[0], second_.sites()[0]}; }
  std::vector<nn::ParameterSlot> parameter_slots() override {
    std::vector<nn::ParameterSlot> slots;
    for (auto* linear : {&first_, &second_}) {
      const auto& name = linear->members[0].name;
      slots.push_back({{{name + ".weight", linear->weight.sizes().vec()}},
                       &linear->weight,
                       &linear->weight_grad});
      slots.push_back(
          {{{name + ".bias", linear->bias.sizes().vec()}}, &linear->bias, &linear->bias_grad});
    }
    return slots;
  }
  models::LeafResult accumulate(const data::Leaf& any) override {
    const auto& leaf = dynamic_cast<const PointLeaf&>(any);
    const at::Tensor x = points(leaf);
    nn::DeltasSaved first_saved, second_saved;
    at::Tensor hidden = first_.forward(x, nullptr, &first_saved);
    nn::relu(hidden);
    at::Tensor logits = second_.forward(hidden, nullptr, &second_saved);
    const auto loss = nn::softmax_loss_backward(logits, leaf.labels, 0);  // now the gradient
    at::Tensor grad = second_.backward(logits, hidden, nullptr, second_saved, /*need_dx=*/true);
    nn::relu_backward(grad, hidden);
    first_.backward(grad, x, nullptr, first_saved, /*need_dx=*/false);
    return result(leaf, loss);
  }
  models::LeafResult evaluate(const data::Leaf& any) override {
    const auto& leaf = dynamic_cast<const PointLeaf&>(any);
    at::Tensor hidden = first_.forward(points(leaf), nullptr, nullptr);
    nn::relu(hidden);
    return result(leaf, nn::softmax_loss(second_.forward(hidden, nullptr, nullptr), leaf.labels));
  }
  [[nodiscard]] std::vector<std::string> measure_names() const override { return {"accuracy"}; }
  [[nodiscard]] double forward_operations(const data::Leaf& leaf) const override {
    return 2.0 * (2 * 16 + 16 * 2) * static_cast<double>(leaf.units);
  }
  [[nodiscard]] models::ActivationBytes activation_bytes(const data::Leaf& leaf) const override {
    return {4.0 * (2 + 16) * static_cast<double>(leaf.units),
            4.0 * 2 * static_cast<double>(leaf.units)};
  }

 private:
  static at::Tensor points(const PointLeaf& leaf) {
    return at::from_blob(const_cast<float*>(leaf.points.data()), {leaf.units, 2}, at::kFloat)
        .clone();
  }
  static models::LeafResult result(const PointLeaf& leaf, const nn::SoftmaxLoss& loss) {
    models::LeafResult result{loss.sum, 0};
    result.targets = std::ranges::count_if(leaf.labels, [](auto label) { return label >= 0; });
    result.measures =
        at::stack({loss.correct, at::full({}, static_cast<double>(result.targets), at::kDouble)})
            .view({1, 2});
    return result;
  }

  nn::LinearGroup first_, second_;
};

class PointWorkload : public workloads::Workload {
 public:
  explicit PointWorkload(std::uint64_t seed) : model_(seed) {}

  models::Model& model() override { return model_; }
  [[nodiscard]] const data::Dataset& train() const override { return train_; }
  [[nodiscard]] const data::Dataset* validation() const override { return &validation_; }
  workloads::Preview* preview() override { return nullptr; }
  [[nodiscard]] const workloads::Words& words() const override { return words_; }
  [[nodiscard]] std::string model_fingerprint() const override { return "points"; }
  [[nodiscard]] std::int64_t enough_samples() const override { return 64; }
  [[nodiscard]] std::vector<std::string> warnings() const override { return {}; }
  [[nodiscard]] adapters::ExportContext export_context() const override {
    return {"", "", {}, [](const std::filesystem::path&, at::ScalarType) {}};
  }

 private:
  PointDataset train_{96}, validation_{24};
  PointModel model_;
  workloads::Words words_{"point", "points/s", "fewer points", "no point has a kind"};
};

}  // namespace lorascale::toys
