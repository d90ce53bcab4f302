// LoRA as make_adapter() gives it: through the table, knowing settings of the configuration only.
#include "adapters/lora/lora_adapter.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "adapters/small_model.hpp"
#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

namespace fs = std::filesystem;
using lorascale::test::noise;
using lorascale::test::same_bits;
using testing::HasSubstr;

config::AdapterSection section() {
  config::AdapterSection section;
  section.rank = 3;
  section.alpha = 6;
  section.targets = {"q_proj", "v_proj"};
  section.rank_pattern = {{"v_proj", 2}};
  section.alpha_pattern = {{"layers.1.q_proj", 0.5}};
  return section;
}

void train(Adapter& adapter, std::uint64_t seed) {
  at::Tensor(adapter.parameters().master()).copy_(noise({adapter.parameters().size()}, seed));
  adapter.parameters().refresh();
}

// Layers of section() in the order of the model, with s = alpha / r.
struct Layer {
  at::Tensor weight;
  std::int64_t rank;
  double scale;
};
std::vector<Layer> layers_of(test::SmallModel& model) {
  return {{model.joint.weight.narrow(0, 0, 8), 3, 2.0},
          {model.joint.weight.narrow(0, 8, 5), 2, 3.0},
          {model.query.weight, 3, 0.5 / 3}};
}

// |s B A| / |W| over all layers at once, from the flat vector: all A first, then all B.
double movement_of(test::SmallModel& model, const at::Tensor& flat) {
  const auto layers = layers_of(model);
  double change = 0, weight = 0;
  std::int64_t next = 0;
  std::vector<at::Tensor> a;
  for (const auto& layer : layers) {
    a.push_back(flat.narrow(0, next, layer.rank * 6).view({layer.rank, 6}).to(at::kDouble));
    next += layer.rank * 6;
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const auto out = layers[i].weight.size(0);
    const at::Tensor b = flat.narrow(0, next, out * layers[i].rank).view({out, layers[i].rank});
    next += out * layers[i].rank;
    change += (at::mm(b.to(at::kDouble), a[i]) * layers[i].scale).square().sum().item<double>();
    weight += layers[i].weight.to(at::kDouble).square().sum().item<double>();
  }
  EXPECT_EQ(next, flat.size(0));
  return std::sqrt(change / weight);
}

TEST(LoraAdapter, MovesByItsShareOfTheWeights) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    test::SmallModel model(type);
    const auto adapter = make_adapter(section(), model.adapted(), 1);
    EXPECT_EQ(adapter->movement(), 0.0) << "B starts at zero";
    for (const std::uint64_t seed : {2, 3}) {
      train(*adapter, seed);
      const double expected = movement_of(model, adapter->parameters().master());
      ASSERT_TRUE(adapter->movement());
      EXPECT_GT(expected, 0.1);
      EXPECT_NEAR(*adapter->movement(), expected, 1e-6 * expected);
    }
  }
}

// s B A of each layer of section().
std::vector<at::Tensor> changes_of(test::SmallModel& model, Adapter& adapter) {
  const auto& parameters = adapter.parameters();
  const auto of = [&](std::size_t entry) {
    return TrainableParameters::view(parameters.master(), parameters.entries()[entry])
        .to(at::kDouble);
  };
  std::vector<at::Tensor> changes;
  for (std::size_t i = 0; i < 3; ++i) {
    changes.push_back(at::mm(of(3 + i), of(i)) * layers_of(model)[i].scale);
  }
  return changes;
}

// Changes that are too large come down to the limit along their own direction; others stay.
TEST(LoraAdapter, LimitsTheChangeOfEachLayer) {
  test::SmallModel model;
  const auto free = make_adapter(section(), model.adapted(), 1);
  train(*free, 2);
  const auto before = changes_of(model, *free);
  const at::Tensor untouched = free->parameters().master().clone();
  free->constrain();
  EXPECT_TRUE(same_bits(free->parameters().master(), untouched));

  std::vector<double> norms;
  for (const auto& change : before) {
    norms.push_back(change.norm().item<double>());
  }
  const auto [low, high] = std::ranges::minmax(norms);
  const double limit = (low + high) / 2;
  auto limited = section();
  limited.scale_weight_norms = limit;
  const auto adapter = make_adapter(limited, model.adapted(), 1);
  train(*adapter, 2);
  adapter->constrain();
  const auto after = changes_of(model, *adapter);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto expected = before[i] * std::min(1.0, limit / norms[i]);
    EXPECT_LT((after[i] - expected).norm().item<double>(), 1e-6 * norms[i]) << i;
  }
}

TEST(LoraAdapter, KnowsNoMovementOfLayersOfZeros) {
  test::SmallModel model;
  model.joint.weight.zero_();
  model.query.weight.zero_();
  const auto adapter = make_adapter(section(), model.adapted(), 1);
  train(*adapter, 2);
  EXPECT_EQ(adapter->movement(), std::nullopt);
}

TEST(LoraAdapter, TakesItsSettingsFromTheConfiguration) {
  auto chosen = section();
  chosen.lr_ratio = 16;
  test::SmallModel model;
  const auto adapter = make_adapter(chosen, model.adapted(), 1);
  EXPECT_EQ(adapter->result_name(), "adapter");
  EXPECT_EQ(adapter->warning(), std::nullopt);
  const auto& groups = adapter->parameters().groups();
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].lr_ratio, 1);
  EXPECT_EQ(groups[1].lr_ratio, 16);
  EXPECT_TRUE(groups[1].starts_at_zero && groups[0].decays && groups[1].decays);
  EXPECT_EQ(groups[0].end, (3 + 2 + 3) * 6);
  EXPECT_EQ(groups[1].end, groups[0].end + 8 * 3 + 5 * 2 + 8 * 3);
  EXPECT_EQ(model.joint.deltas.size(), 2U);
  EXPECT_EQ(model.query.deltas.size(), 1U);
  EXPECT_TRUE(model.up.deltas.empty());
  // The same seed gives the same start on every rank.
  test::SmallModel other;
  const auto again = make_adapter(chosen, other.adapted(), 1);
  EXPECT_TRUE(same_bits(again->parameters().master(), adapter->parameters().master()));
}

class Folder {
 public:
  ~Folder() { fs::remove_all(path_); }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_ = fs::path(testing::TempDir()) / ("lora_adapter_" + std::to_string(::getpid()));
};

TEST(LoraAdapter, BeginsFromAnotherAsItWasWritten) {
  const Folder folder;
  test::SmallModel model;
  const auto trained = make_adapter(section(), model.adapted(), 1);
  train(*trained, 2);
  trained->write(folder.path(), {"bases/Small", "CAUSAL_LM", {}, {}});
  auto chosen = section();
  chosen.init_from = folder.path().string();
  test::SmallModel same;
  const auto next = make_adapter(chosen, same.adapted(), 7);
  EXPECT_TRUE(same_bits(next->parameters().master(), trained->parameters().master()));
  EXPECT_EQ(next->warning(), std::nullopt);
  test::SmallModel other;
  auto of_other_name = other.adapted();
  of_other_name.base = "bases/Other";
  EXPECT_THAT(make_adapter(chosen, of_other_name, 7)->warning().value_or(""),
              HasSubstr("the adapter was made for the base model"));
  chosen.rank = 4;
  EXPECT_THROW(make_adapter(chosen, other.adapted(), 7), Error);
}

// Shapes are enough to tell whether settings fit: no memory is touched and nothing attached.
TEST(LoraAdapter, IsCheckedOnShapesAlone) {
  test::SmallModel shapes(at::TensorOptions().dtype(at::kBFloat16).device(at::kMeta));
  const auto model = shapes.adapted();
  ASSERT_TRUE(model.sites[0].weight.is_meta());
  check_adapter(section(), model);
  EXPECT_TRUE(shapes.joint.deltas.empty());
  const auto refusal = [&](const config::AdapterSection& chosen) -> std::string {
    try {
      check_adapter(chosen, model);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadConfig);
      return error.what();
    }
    return "fits";
  };
  auto chosen = section();
  chosen.rank_pattern = {{"v_proj", 6}};
  EXPECT_EQ(refusal(chosen),
            "adapter.rank: 6 for model.layers.0.v_proj must lie in 1 to 5; give "
            "it a rank of its own by adapter.rank_pattern, or leave it out of "
            "adapter.targets");
  chosen.rank_pattern = {{"v_proj", 5}};
  EXPECT_EQ(refusal(chosen), "fits");
  chosen.targets = {"k_proj"};
  EXPECT_THAT(refusal(chosen), HasSubstr("'k_proj' matches no layer"));
}

}  // namespace
}  // namespace lorascale::adapters
