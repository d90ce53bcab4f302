#include "train/saved_state.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <limits>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/checkpoint_folder.hpp"
#include "optim/by_name.hpp"
#include "train/snapshot.hpp"

namespace lorascale::train {
namespace {

constexpr std::int64_t kSize = 37;

std::vector<float> bytes_of(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), tensor.const_data_ptr<float>() + tensor.numel()};
}

// Bits, so that -0 is not +0 and a NaN is itself.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<adapters::TrainableParameters::GroupSpec> one_group() {
  adapters::TrainableParameters::GroupSpec spec;
  spec.group = {"lora_A", 0, 0, 1.0, true};
  spec.entries = {{"a", {kSize}, 0}};
  return {spec};
}

struct Trained {
  adapters::TrainableParameters parameters{one_group(), at::kCPU};
  std::unique_ptr<optim::Optimizer> optimizer;
  at::Tensor rounded;  // what a 16-bit model computes with

  explicit Trained(const std::string& name)
      : optimizer(optim::make_optimizer(name, {{0, kSize, 1.0, true}}, parameters.master())) {
    rounded = parameters.computed(parameters.entries()[0], at::kBFloat16);
    at::Tensor(parameters.master()).copy_(at::linspace(-3, 5, kSize));
    at::Tensor(parameters.master())[4] = -0.0F;
  }
  void update(double lr) {
    at::Tensor master = parameters.master();
    at::Tensor gradient = at::cos(master * 7);
    const auto facts = optim::gradient_facts(gradient, at::full({}, 3.0, at::kDouble), 0);
    optimizer->step(master, gradient, {lr, 0.9, 0.99, 1e-8, 0.1}, facts);
  }
  [[nodiscard]] TrainedState state() const { return {parameters, *optimizer}; }
  [[nodiscard]] std::vector<std::vector<float>> bits() const {
    std::vector<std::vector<float>> all = {bytes_of(parameters.master())};
    for (const auto& [name, tensor] : optimizer->state()) {
      all.push_back(bytes_of(tensor));
    }
    return all;
  }
};

// Every bit comes back, in the same tensors, also over values that are not finite.
TEST(SavedState, ComesBackBitForBit) {
  for (const char* name : {"adamw", "sgd"}) {
    Trained trained(name);
    trained.update(0.01);
    trained.update(0.01);
    const auto before = trained.bits();
    const void* place = trained.parameters.master().data_ptr();
    const SavedState saved(trained.state());
    const auto digest = state_digest(trained.state());
    for (const double lr : {0.1, 1e3, std::numeric_limits<double>::infinity()}) {
      trained.update(lr);
      EXPECT_NE(state_digest(trained.state()), digest);
    }
    trained.rounded.zero_();
    saved.restore();
    EXPECT_TRUE(at::equal(trained.rounded, trained.parameters.master().to(at::kBFloat16)));
    EXPECT_EQ(trained.parameters.master().data_ptr(), place);
    const auto after = trained.bits();
    ASSERT_EQ(after.size(), before.size());
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_TRUE(same_bits(before[i], after[i])) << name << " tensor " << i;
    }
    EXPECT_EQ(state_digest(trained.state()), digest);
  }
}

// What comes after is what would have come without the excursion.
TEST(SavedState, TheNextUpdatesAreTheSame) {
  for (const char* name : {"adamw", "sgd"}) {
    Trained straight(name);
    Trained excursion(name);
    straight.update(0.01);
    excursion.update(0.01);
    const SavedState saved(excursion.state());
    excursion.update(10);
    saved.restore();
    straight.update(0.02);
    excursion.update(0.02);
    EXPECT_EQ(straight.bits(), excursion.bits()) << name;
  }
}

// The digest is that of the bytes one after the other, which a test in Python computes again.
TEST(SavedState, DigestIsOfTheBytes) {
  const Trained trained("adamw");
  std::string bytes;
  for (const auto& values : trained.bits()) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
  EXPECT_EQ(state_digest(trained.state()), sha256_hex(bytes));
}

// A checkpoint of weights that are not numbers would be gone back to for ever.
TEST(Snapshot, OfWhatIsNotFiniteIsRefused) {
  const auto folder =
      std::filesystem::path(testing::TempDir()) / ("snapshot_" + std::to_string(::getpid()));
  {
    Trained trained("adamw");
    const io::RunLock lock(folder);
    SnapshotFields fields;
    fields.step = 3;
    const auto save = [&] { save_snapshot(folder / "checkpoints", fields, trained.state(), lock); };
    for (const double value :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      at::Tensor(trained.parameters.master())[5] = value;
      try {
        save();
        ADD_FAILURE() << "saved with " << value;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::kDiverged);
        EXPECT_NE(std::string(error.what()).find("step 3"), std::string::npos);
      }
    }
    EXPECT_TRUE(io::list_checkpoints(folder / "checkpoints").empty());
    at::Tensor(trained.parameters.master())[5] = 1;
    save();
    EXPECT_EQ(io::list_checkpoints(folder / "checkpoints"), std::vector<std::int64_t>{3});
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace lorascale::train
