// Model folders with something wrong: each is refused with the tensor and the reason, before memory
// is taken for what the file does not hold.
#include "support/tensors.hpp"
#include "tiny_decoder.hpp"

namespace lorascale::models::decoder {
namespace {

using Weights = std::map<std::string, at::Tensor>;

const std::string kUp = "model.layers.1.mlp.up_proj.weight";

class HostileWeightsTest : public testing::Test {
 protected:
  HostileWeightsTest() : weights_(golden_weights(*golden_model(tiny_json("llama")))) {}

  void expect_refused(std::initializer_list<std::string_view> words,
                      std::optional<at::ScalarType> dtype = std::nullopt) {
    write_folder(folder_.path(), json_, weights_);
    io::expect_error(ExitCode::kBadInput, words,
                     [&] { load_decoder(folder_.path(), dtype, at::kCPU); });
  }

  const io::TempFolder folder_;
  Json json_ = tiny_json("llama");
  Weights weights_;
};

TEST_F(HostileWeightsTest, EachMissingTensorIsNamed) {
  const auto all = weights_;
  for (const auto& [key, tensor] : all) {
    weights_ = all;
    weights_.erase(key);
    expect_refused({folder_.path().string(), "no tensor", key});
  }
}

TEST_F(HostileWeightsTest, AHeadThatATiedModelWouldDrop) {
  json_ = tiny_json("qwen2");
  weights_ = golden_weights(*golden_model(json_));
  weights_["lm_head.weight"] = weights_.at("model.embed_tokens.weight") + 1;
  expect_refused({"lm_head.weight", "tie_word_embeddings"});
}

TEST_F(HostileWeightsTest, WrongShapes) {
  const auto sound = weights_.at(kUp);
  for (const auto& wrong :
       {sound.narrow(0, 0, 127).contiguous(), sound.t().contiguous(), sound.flatten(),
        sound.unsqueeze(0), at::zeros({0, 64}), at::zeros({})}) {
    weights_[kUp] = wrong;
    expect_refused({kUp, "has shape", "[128, 64]"});
  }
}

TEST_F(HostileWeightsTest, WrongTypes) {
  for (const auto type : {at::kDouble, at::kLong}) {
    const auto sound = weights_.at(kUp);
    weights_[kUp] = sound.to(type);
    expect_refused({kUp, "type", "F32, F16 and BF16"});
    weights_[kUp] = sound;
    const auto embedding = weights_.at("model.embed_tokens.weight");
    weights_["model.embed_tokens.weight"] = embedding.to(type);
    expect_refused({"model.embed_tokens.weight", "type", "F32, F16 and BF16"});
    weights_["model.embed_tokens.weight"] = embedding;
  }
}

TEST_F(HostileWeightsTest, ValuesThatAreNotFinite) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
      auto damaged = weights_.at(kUp).to(type, false, /*copy=*/true);
      damaged[127][63] = bad;
      const auto sound = weights_.at(kUp);
      weights_[kUp] = damaged;
      expect_refused({kUp, "NaN or infinite"});
      weights_[kUp] = sound;
    }
  }
  weights_["model.norm.weight"][0] = std::nan("");
  expect_refused({"model.norm.weight", "NaN or infinite"});
}

// A number that bf16 holds and fp16 does not must not turn into infinity in silence.
TEST_F(HostileWeightsTest, ValuesBeyondTheWantedType) {
  weights_[kUp][3][4] = 1e6;
  expect_refused({kUp, "fp16", "bf16 or fp32"}, at::kHalf);
  EXPECT_NO_THROW(load_decoder(folder_.path(), at::kBFloat16, at::kCPU));
}

TEST_F(HostileWeightsTest, TensorsWithoutAPlace) {
  for (const char* key :
       {"model.layers.2.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.q_proj.lora_A.weight",
        "model.layers.0.mlp.up_proj.qweight", "vision_tower.weight"}) {
    weights_[key] = at::zeros({1});
    expect_refused({key, "no place", "another architecture"});
    weights_.erase(key);
  }
}

TEST_F(HostileWeightsTest, AConfigOfAnotherModel) {
  json_["num_hidden_layers"] = 3;
  expect_refused({"no tensor", "model.layers.2."});
  json_ = tiny_json("llama");
  json_["intermediate_size"] = 130;
  expect_refused({"mlp.", "has shape", "config.json asks for"});
  json_ = tiny_json("llama");
  json_["tie_word_embeddings"] = false;
  json_["vocab_size"] = 255;
  expect_refused({"model.embed_tokens.weight", "has shape [256, 64]", "[255, 64]"});
}

// Sizes are compared with the file before anything is allocated: these would take terabytes.
TEST_F(HostileWeightsTest, AConfigThatAsksForTheWorld) {
  for (const auto& change :
       std::vector<Json>{{{"intermediate_size", 1 << 24}},
                         {{"hidden_size", 1 << 20}},
                         {{"vocab_size", 1 << 30}},
                         {{"num_hidden_layers", 10000}},
                         {{"num_attention_heads", 1 << 14}, {"head_dim", 4096}}}) {
    json_ = tiny_json("llama");
    json_.update(change);
    SCOPED_TRACE(change.dump());
    expect_refused({folder_.path().string()});
  }
}

TEST_F(HostileWeightsTest, Indices) {
  write_folder(folder_.path(), json_, weights_);
  std::filesystem::rename(folder_ / "model.safetensors", folder_ / "other.safetensors");
  const auto load = [&] { load_decoder(folder_.path(), std::nullopt, at::kCPU); };
  io::expect_error(ExitCode::kBadInput, {"holds no model"}, load);
  Json map = Json::object();
  for (const auto& [key, tensor] : weights_) {
    map[key] = "shard.safetensors";
  }
  const auto put = [&] {
    io::put_file(folder_ / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  };
  put();
  io::expect_error(ExitCode::kBadInput, {"missing", "shard.safetensors"}, load);
  std::filesystem::create_directory(folder_ / "inner");
  map[kUp] = "../other.safetensors";
  put();
  io::expect_error(ExitCode::kBadInput, {kUp, "plain name"}, load);
}

TEST_F(HostileWeightsTest, TruncatedFile) {
  write_folder(folder_.path(), json_, weights_);
  const auto file = folder_ / "model.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  io::expect_error(ExitCode::kBadInput, {"model.safetensors", "cut short"},
                   [&] { load_decoder(folder_.path(), std::nullopt, at::kCPU); });
}

}  // namespace
}  // namespace lorascale::models::decoder
