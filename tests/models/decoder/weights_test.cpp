// Folders as Hugging Face writes them become the model that made them.
#include "support/tensors.hpp"
#include "tiny_decoder.hpp"

namespace lorascale::models::decoder {
namespace {

using test::same_bits;
using Weights = std::map<std::string, at::Tensor>;

void expect_same_model(Decoder& a, Decoder& b) {
  const auto x = a.parameter_slots();
  const auto y = b.parameter_slots();
  ASSERT_EQ(x.size(), y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    EXPECT_TRUE(same_bits(*x[i].value, *y[i].value)) << x[i].parts[0].key;
  }
}

TEST(LoadDecoderTest, EveryFamily) {
  const io::TempFolder folder;
  Json biased = tiny_json("llama");
  biased.update({{"attention_bias", true}, {"mlp_bias", true}});
  int next = 0;
  for (const Json& json :
       {tiny_json("llama"), biased, tiny_json("mistral"), tiny_json("qwen2"), tiny_json("qwen3")}) {
    const auto expected = golden_model(json);
    const auto path = folder / std::to_string(next++);
    write_folder(path, json, golden_weights(*expected));
    const auto loaded = load_decoder(path, std::nullopt, at::kCPU);
    expect_same_model(*loaded, *expected);
    EXPECT_EQ(loaded->dtype(), at::kFloat);
    EXPECT_EQ(loaded->vocabulary(), 256);
  }
}

TEST(LoadDecoderTest, ConvertsTypes) {
  const io::TempFolder folder;
  const auto model = golden_model(tiny_json("llama"));
  for (const auto stored : {at::kFloat, at::kHalf, at::kBFloat16}) {
    Weights weights = golden_weights(*model);
    for (auto& [key, tensor] : weights) {
      tensor = tensor.to(stored);
    }
    write_folder(folder.path(), tiny_json("llama"), weights);
    EXPECT_EQ(load_decoder(folder.path(), std::nullopt, at::kCPU)->dtype(), stored);
    for (const auto wanted : {at::kFloat, at::kHalf, at::kBFloat16}) {
      const auto loaded = load_decoder(folder.path(), wanted, at::kCPU);
      const at::Tensor q = loaded->sites()[0].weight;
      EXPECT_TRUE(same_bits(q, weights.at("model.layers.0.self_attn.q_proj.weight").to(wanted)));
    }
  }
}

// Each tensor says its own type; the embedding's is the model's.
TEST(LoadDecoderTest, MixedTypes) {
  const io::TempFolder folder;
  const auto model = golden_model(tiny_json("llama"));
  Weights weights = golden_weights(*model);
  const std::string key = "model.layers.1.mlp.up_proj.weight";
  weights[key] = weights[key].to(at::kBFloat16);
  write_folder(folder.path(), tiny_json("llama"), weights);
  const auto loaded = load_decoder(folder.path(), std::nullopt, at::kCPU);
  EXPECT_EQ(loaded->dtype(), at::kFloat);
  const auto sites = loaded->sites();
  EXPECT_TRUE(same_bits(site_named(sites, "model.layers.1.mlp.up_proj").weight,
                        weights[key].to(at::kFloat)));
}

TEST(LoadDecoderTest, KeysWithoutPrefix) {
  const io::TempFolder folder;
  const auto model = golden_model(tiny_json("qwen3"));
  Weights bare;
  for (const auto& [key, tensor] : golden_weights(*model)) {
    bare[key.starts_with("model.") ? key.substr(6) : key] = tensor;
  }
  write_folder(folder.path(), tiny_json("qwen3"), bare);
  expect_same_model(*load_decoder(folder.path(), std::nullopt, at::kCPU), *model);
}

TEST(LoadDecoderTest, HarmlessExtras) {
  const io::TempFolder folder;
  const auto model = golden_model(tiny_json("qwen2"));
  Weights weights = golden_weights(*model);
  weights["lm_head.weight"] = weights["model.embed_tokens.weight"];  // tied all the same
  weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::ones({8});
  write_folder(folder.path(), tiny_json("qwen2"), weights);
  expect_same_model(*load_decoder(folder.path(), std::nullopt, at::kCPU), *model);
}

// As processes do, one after the other into the same bytes: the whole is what one alone reads, and
// no process reads much more than its share.
TEST(LoadDecoderTest, PartsOfCommonMemoryMakeTheWholeModel) {
  const io::TempFolder folder;
  for (const auto& family : {"llama", "qwen3"}) {  // with a head, and tied
    const auto expected = golden_model(tiny_json(family));
    write_folder(folder / family, tiny_json(family), golden_weights(*expected));
    const auto needed =
        bytes_to_settle(read_decoder_shapes(folder / family, std::nullopt)->parameter_slots());
    for (const int parts : {1, 2, 3, 7, 100}) {
      const auto memory = std::make_shared<at::Tensor>(
          at::full({static_cast<std::int64_t>(needed) / 4}, NAN, at::kFloat));
      CommonMemory common{memory, nn::writable_bytes(*memory), 0, parts};
      std::vector<std::unique_ptr<Decoder>> models;
      std::int64_t left = memory->isnan().sum().item<std::int64_t>();
      std::int64_t most = 0;
      for (common.part = 0; common.part < parts; ++common.part) {
        models.push_back(load_decoder(folder / family, std::nullopt, WeightPlace(common)));
        const auto now = memory->isnan().sum().item<std::int64_t>();
        most = std::max(most, left - now);
        left = now;
      }
      // No part is much more than its share, beyond the largest tensor (of 16 Ki elements).
      EXPECT_LE(most, static_cast<std::int64_t>(needed) / 4 / parts + 16384) << parts;
      for (const auto& model : models) {
        expect_same_model(*model, *expected);
        EXPECT_EQ(model->device(), at::kCPU);
      }
    }
  }
}

TEST(LoadDecoderTest, CommonMemoryLivesAsLongAsAWeight) {
  const io::TempFolder folder;
  const auto model = golden_model(tiny_json("llama"));
  write_folder(folder.path(), tiny_json("llama"), golden_weights(*model));
  const auto needed = static_cast<std::int64_t>(
      bytes_to_settle(read_decoder_shapes(folder.path(), std::nullopt)->parameter_slots()));
  auto memory = std::make_shared<at::Tensor>(at::empty({needed}, at::kByte));
  const std::weak_ptr<at::Tensor> alive = memory;
  auto loaded = load_decoder(folder.path(), std::nullopt,
                             WeightPlace({memory, nn::writable_bytes(*memory), 0, 1}));
  memory = nullptr;
  at::Tensor weight = loaded->sites()[0].weight;
  loaded = nullptr;
  EXPECT_FALSE(alive.expired());
  weight.reset();
  EXPECT_TRUE(alive.expired());
}

TEST(LoadDecoderTest, Shards) {
  const io::TempFolder folder;
  const auto model = golden_model(tiny_json("llama"));
  Weights shards[2];
  Json map = Json::object();
  int next = 0;
  for (const auto& [key, tensor] : golden_weights(*model)) {
    const int shard = next++ % 2;
    shards[shard][key] = tensor;
    map[key] = "model-0000" + std::to_string(shard + 1) + "-of-00002.safetensors";
  }
  io::put_file(folder / "config.json", tiny_json("llama").dump());
  write_weights(folder / "model-00001-of-00002.safetensors", shards[0]);
  write_weights(folder / "model-00002-of-00002.safetensors", shards[1]);
  io::put_file(folder / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  expect_same_model(*load_decoder(folder.path(), std::nullopt, at::kCPU), *model);
}

}  // namespace
}  // namespace lorascale::models::decoder
