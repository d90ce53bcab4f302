// Folders with config.json and model.safetensors become the model that wrote them, or are refused
// with the tensor and the reason.
#include <nlohmann/json.hpp>

#include "io/safetensors_writer.hpp"
#include "io/support.hpp"
#include "nn/tensor_bytes.hpp"
#include "tiny_resnet.hpp"

namespace lorascale::models::vision {
namespace {

using test::same_bits;
using Weights = std::map<std::string, at::Tensor>;

io::Dtype stored_as(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return io::Dtype::kF32;
    case at::kHalf:
      return io::Dtype::kF16;
    case at::kBFloat16:
      return io::Dtype::kBF16;
    case at::kDouble:
      return io::Dtype::kF64;
    default:
      return io::Dtype::kI64;
  }
}

class ResNetWeightsTest : public testing::Test {
 protected:
  ResNetWeightsTest() : model_(tiny_resnet(config_, at::kFloat)) {
    for (const auto& slot : model_->file_slots()) {
      weights_[slot.parts[0].key] = slot.value->clone();
    }
  }

  void write() {
    io::put_file(folder_ / "config.json", resnet_config_json(config_));
    std::vector<io::TensorToWrite> tensors;
    for (const auto& [key, tensor] : weights_) {
      tensors.push_back(
          {key, stored_as(tensor.scalar_type()), tensor.sizes().vec(), nn::bytes_of(tensor)});
    }
    io::write_safetensors(folder_ / "model.safetensors", tensors, {{"format", "pt"}});
  }
  std::unique_ptr<ResNet> load(std::optional<at::ScalarType> dtype = std::nullopt) {
    return load_resnet(folder_.path(), dtype, at::kCPU);
  }
  void expect_refused(std::initializer_list<std::string_view> words,
                      std::optional<at::ScalarType> dtype = std::nullopt) {
    write();
    io::expect_error(ExitCode::kBadInput, words, [&] { load(dtype); });
  }

  const io::TempFolder folder_;
  ResNetConfig config_ = tiny_config(BlockKind::kBasic, NormKind::kBatch);
  std::unique_ptr<ResNet> model_;
  Weights weights_;
};

const std::string kConv = "layer2.0.conv1.weight";

TEST_F(ResNetWeightsTest, Loads) {
  weights_["bn1.num_batches_tracked"] = at::ones({}, at::kLong);  // harmless
  write();
  const auto loaded = load();
  EXPECT_EQ(loaded->dtype(), at::kFloat);
  EXPECT_EQ(resnet_config_json(loaded->config()), resnet_config_json(config_));
  for (const auto& slot : loaded->file_slots()) {
    EXPECT_TRUE(same_bits(*slot.value, weights_.at(slot.parts[0].key))) << slot.parts[0].key;
  }
  EXPECT_TRUE(same_bits(loaded->running_state(), model_->running_state()));
  EXPECT_TRUE(same_bits(loaded->logits(pictures({1, 2})), model_->logits(pictures({1, 2}))));
}

TEST_F(ResNetWeightsTest, ConvertsTypes) {
  for (const auto stored : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const auto original = weights_;
    for (auto& [key, tensor] : weights_) {
      tensor = tensor.to(stored);
    }
    write();
    EXPECT_EQ(load()->dtype(), stored);
    EXPECT_TRUE(read_resnet_shapes(folder_.path(), at::kHalf)->device().is_meta());
    for (const auto wanted : {at::kFloat, at::kHalf, at::kBFloat16}) {
      const auto loaded = load(wanted);
      for (const auto& slot : loaded->file_slots()) {
        const auto& key = slot.parts[0].key;
        const bool running = key.find("running") != std::string::npos;
        EXPECT_TRUE(same_bits(*slot.value, weights_.at(key).to(running ? at::kFloat : wanted)));
      }
    }
    weights_ = original;
  }
}

TEST_F(ResNetWeightsTest, EachMissingTensorIsNamed) {
  const auto all = weights_;
  for (const auto& [key, tensor] : all) {
    weights_ = all;
    weights_.erase(key);
    expect_refused({folder_.path().string(), "no tensor", key});
  }
}

TEST_F(ResNetWeightsTest, WrongShapesAndTypes) {
  const auto sound = weights_.at(kConv);
  for (const auto& wrong : {sound.narrow(0, 0, 7).contiguous(), sound.flatten(), at::zeros({})}) {
    weights_[kConv] = wrong;
    expect_refused({kConv, "has shape", "[8, 4, 3, 3]"});
  }
  weights_[kConv] = sound.to(at::kDouble);
  expect_refused({kConv, "type", "F32, F16 and BF16"});
}

TEST_F(ResNetWeightsTest, ValuesThatAreNotFinite) {
  for (const auto& key : {kConv, std::string("layer1.0.bn1.running_mean")}) {
    const auto sound = weights_.at(key).clone();
    weights_.at(key).flatten()[0] = std::nan("");
    expect_refused({key, "NaN or infinite"});
    weights_.at(key).copy_(sound);
  }
  weights_.at(kConv).flatten()[3] = 1e6;
  expect_refused({kConv, "fp16", "bf16 or fp32"}, at::kHalf);
  EXPECT_NO_THROW(load(at::kBFloat16));
}

TEST_F(ResNetWeightsTest, AVarianceBelowZero) {
  weights_.at("layer1.0.bn2.running_var")[2] = -0.25;
  expect_refused({"layer1.0.bn2.running_var", "below zero"});
}

TEST_F(ResNetWeightsTest, TensorsWithoutAPlace) {
  for (const char* key : {"layer3.0.conv1.weight", "conv1.bias", "layer1.0.downsample.0.weight",
                          "fc.lora_A.weight"}) {
    weights_[key] = at::zeros({1});
    expect_refused({key, "no place", "another architecture"});
    weights_.erase(key);
  }
}

// Sizes are compared with the file before anything is allocated: these would take terabytes.
TEST_F(ResNetWeightsTest, AConfigThatAsksForTheWorld) {
  config_.width = 1 << 14;
  config_.layers = {1000, 1000, 1, 1, 1, 1, 1, 1};
  expect_refused({folder_.path().string()});
}

}  // namespace
}  // namespace lorascale::models::vision
