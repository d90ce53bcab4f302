// Loss and the gradient of every weight against the architecture written out in fp64 and
// differentiated by autograd, for each family; what a leaf's shape and recomputation must not
// change.
#include <algorithm>
#include <numeric>

#include "support/tensors.hpp"
#include "tiny_decoder.hpp"

namespace lorascale::models::decoder {
namespace {

using test::expect_close;
using test::leaf64;
using test::same_bits;
using Weights = std::map<std::string, at::Tensor>;

// The architecture as its authors wrote it down, on one document after the other.
class Reference {
 public:
  Reference(const DecoderConfig& config, Weights weights) : c_(config), w_(std::move(weights)) {}

  at::Tensor loss(const data::TokenLeaf& leaf) const {
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (const auto& segment : leaf.segments) {
      for (auto t = segment.begin; t < segment.end; ++t) {
        // Row t alone is needed, but rows before it are what it sees.
        const auto label = leaf.labels[static_cast<std::size_t>(t)];
        if (label >= 0) {
          const auto logits = document(leaf, segment);
          for (auto row = segment.begin; row < segment.end; ++row) {
            const auto wanted = leaf.labels[static_cast<std::size_t>(row)];
            if (wanted >= 0) {
              sum = sum - logits[row - segment.begin].log_softmax(0)[wanted];
            }
          }
          break;
        }
      }
    }
    return sum;
  }

 private:
  const at::Tensor& w(const std::string& key) const { return w_.at(key); }
  at::Tensor norm(const at::Tensor& x, const std::string& key) const {
    return w(key) * (x * (x.square().mean(-1, true) + c_.norm_eps).rsqrt());
  }
  at::Tensor linear(const at::Tensor& x, const std::string& key) const {
    const auto y = at::matmul(x, w(key + ".weight").t());
    const auto bias = w_.find(key + ".bias");
    return bias == w_.end() ? y : y + bias->second;
  }
  at::Tensor rotate(const at::Tensor& x) const {  // [heads, tokens, dim]
    const auto frequencies = nn::rope_frequencies(c_.rope);
    const auto angle =
        at::outer(at::arange(x.size(1), at::kDouble), frequencies.inverse.to(at::kDouble));
    const auto both = at::cat({angle, angle}, 1);
    const auto half = c_.head_dim / 2;
    const auto turned = at::cat({-x.narrow(2, half, half), x.narrow(2, 0, half)}, 2);
    return (x * both.cos() + turned * both.sin()) * double{frequencies.attention_factor};
  }
  at::Tensor attend(const at::Tensor& x, std::int64_t layer, const std::string& prefix) const {
    const auto tokens = x.size(0);
    const auto heads_of = [&](const char* name, std::int64_t heads) {
      return linear(x, prefix + name).view({tokens, heads, c_.head_dim}).transpose(0, 1);
    };
    at::Tensor q = heads_of("q_proj", c_.heads), k = heads_of("k_proj", c_.kv_heads);
    const auto v = heads_of("v_proj", c_.kv_heads).repeat_interleave(c_.heads / c_.kv_heads, 0);
    if (c_.qk_norm) {
      q = norm(q, prefix + "q_norm.weight");
      k = norm(k, prefix + "k_norm.weight");
    }
    q = rotate(q);
    k = rotate(k).repeat_interleave(c_.heads / c_.kv_heads, 0);
    const auto index = at::arange(tokens);
    const auto distance = index.unsqueeze(1) - index.unsqueeze(0);
    at::Tensor hidden = distance.lt(0);
    if (const auto window = c_.windows[static_cast<std::size_t>(layer)]) {
      hidden = hidden.logical_or(distance.ge(*window));
    }
    const auto scores = (at::matmul(q, k.transpose(1, 2)) / std::sqrt(double(c_.head_dim)))
                            .masked_fill(hidden, -1e300);
    return linear(at::matmul(scores.softmax(-1), v).transpose(0, 1).reshape({tokens, -1}),
                  prefix + "o_proj");
  }
  at::Tensor document(const data::TokenLeaf& leaf, const data::Segment& segment) const {
    std::vector<std::int64_t> ids(leaf.tokens.begin() + segment.begin,
                                  leaf.tokens.begin() + segment.end);
    at::Tensor x = w("model.embed_tokens.weight").index_select(0, at::tensor(ids, at::kLong));
    for (std::int64_t layer = 0; layer < c_.layers; ++layer) {
      const auto prefix = "model.layers." + std::to_string(layer) + ".";
      x = x + attend(norm(x, prefix + "input_layernorm.weight"), layer, prefix + "self_attn.");
      const auto y = norm(x, prefix + "post_attention_layernorm.weight");
      const auto gate = linear(y, prefix + "mlp.gate_proj");
      x = x + linear(gate * gate.sigmoid() * linear(y, prefix + "mlp.up_proj"),
                     prefix + "mlp.down_proj");
    }
    const auto head = c_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
    return at::matmul(norm(x, "model.norm.weight"), w(head).t());
  }

  const DecoderConfig& c_;
  Weights w_;
};

// Smaller than the golden models, with sizes that no vector width divides.
Json small_json(const std::string& family) {
  Json json = tiny_json(family);
  json.update({{"vocab_size", 29},
               {"hidden_size", 24},
               {"intermediate_size", 19},
               {"head_dim", family == "qwen3" ? 10 : 6}});
  return json;
}

data::TokenLeaf small_leaf() {
  auto leaf = leaf_of({{3, 1, 4, 1, 5, 9, 2}, {6}, {28, 0, 27}, {5, 3, 5}, {8, 9, 7, 9, 3}});
  drop_label(leaf, 2);
  drop_label(leaf, 8);
  return leaf;
}

void give_gradients(Decoder& model) {
  for (const auto& slot : model.parameter_slots()) {
    *slot.grad = at::zeros(slot.value->sizes(), at::kFloat);
  }
}

std::map<std::string, at::Tensor> gradients_of(Decoder& model) {
  std::map<std::string, at::Tensor> gradients;
  for (const auto& slot : model.parameter_slots()) {
    std::int64_t first = 0;
    for (const auto& part : slot.parts) {
      gradients[part.key] = slot.grad->narrow(0, first, part.shape[0]);
      first += part.shape[0];
    }
  }
  return gradients;
}

std::vector<std::pair<std::string, Json>> variants() {
  const auto changed = [](Json json, const Json& changes) {
    json.update(changes);
    return json;
  };
  return {
      {"llama", small_json("llama")},
      {"llama with biases",
       changed(small_json("llama"), {{"attention_bias", true}, {"mlp_bias", true}})},
      {"llama tied", changed(small_json("llama"), {{"tie_word_embeddings", true}})},
      {"llama, as many keys as heads", changed(small_json("llama"), {{"num_key_value_heads", 4}})},
      {"mistral with a window", changed(small_json("mistral"), {{"sliding_window", 3}})},
      {"qwen2 with a window on one layer",
       changed(small_json("qwen2"),
               {{"use_sliding_window", true}, {"sliding_window", 2}, {"max_window_layers", 1}})},
      {"qwen3", small_json("qwen3")},
      {"qwen3 with biases and yarn",
       changed(small_json("qwen3"),
               {{"attention_bias", true},
                {"rope_scaling",
                 {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 64}}}})},
  };
}

TEST(GradientTest, EveryWeightOfEveryFamily) {
  const auto leaf = small_leaf();
  for (const auto& [name, json] : variants()) {
    SCOPED_TRACE(name);
    const auto model = golden_model(json);
    Weights weights;
    std::vector<at::Tensor> inputs;
    std::vector<std::string> keys;
    for (const auto& [key, tensor] : golden_weights(*model)) {
      keys.push_back(key);
      inputs.push_back(weights[key] = leaf64(tensor));
    }
    const auto expected_loss = Reference(model->config(), weights).loss(leaf);
    const auto expected = test::autograd_of(expected_loss, at::ones({}), inputs);

    give_gradients(*model);
    const auto result = model->accumulate(leaf);
    EXPECT_EQ(result.targets, 12);
    expect_close(result.loss_sum, expected_loss, 1e-5, "loss");
    expect_close(model->evaluate(leaf).loss_sum, expected_loss, 1e-5, "evaluate");
    const auto gradients = gradients_of(*model);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      expect_close(gradients.at(keys[i]), expected[i], 1e-5, keys[i]);
    }
    // A second leaf is added to the first.
    model->accumulate(leaf);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      expect_close(gradients.at(keys[i]), 2 * expected[i], 2e-5, keys[i] + " twice");
    }
  }
}

TEST(GradientTest, RecomputingChangesNoBit) {
  for (const auto& [name, json] : variants()) {
    const auto model = golden_model(json);
    give_gradients(*model);
    const auto loss = model->accumulate(small_leaf()).loss_sum;
    Weights kept;
    for (const auto& [key, gradient] : gradients_of(*model)) {
      kept[key] = gradient.clone();
    }
    give_gradients(*model);
    model->set_recompute(true);
    EXPECT_TRUE(same_bits(model->accumulate(small_leaf()).loss_sum, loss)) << name;
    for (const auto& [key, gradient] : gradients_of(*model)) {
      EXPECT_TRUE(same_bits(gradient, kept.at(key))) << name << ": " << key;
    }
  }
}

// A document has the same loss in any company.
TEST(GradientTest, DocumentsDoNotSeeEachOther) {
  const auto model = golden_model(small_json("llama"));
  const std::vector<std::vector<std::int32_t>> documents = {{3, 1, 4, 1}, {5, 9}, {2, 6, 5, 3, 5}};
  double apart = 0;
  for (const auto& document : documents) {
    apart += model->evaluate(leaf_of({document})).loss_sum.item<double>();
  }
  EXPECT_NEAR(model->evaluate(leaf_of(documents)).loss_sum.item<double>(), apart, 1e-5);
}

TEST(GradientTest, ALeafWithoutTargetsAddsNothing) {
  auto leaf = small_leaf();
  for (std::size_t i = 0; i < leaf.labels.size(); ++i) {
    drop_label(leaf, i);
  }
  const auto model = golden_model(small_json("llama"));
  give_gradients(*model);
  const auto result = model->accumulate(leaf);
  EXPECT_EQ(result.targets, 0);
  EXPECT_EQ(result.loss_sum.item<double>(), 0.0);
  EXPECT_EQ(model->evaluate(leaf).loss_sum.item<double>(), 0.0);
  for (const auto& [key, gradient] : gradients_of(*model)) {
    EXPECT_EQ(gradient.abs().sum().item<float>(), 0.0F) << key;
  }
}

// Only what trains gets a gradient; the blocks below the lowest of them are not walked through.
TEST(GradientTest, FrozenWeightsStayFrozen) {
  const auto whole = golden_model(small_json("llama"));
  give_gradients(*whole);
  whole->accumulate(small_leaf());
  const auto part = golden_model(small_json("llama"));
  const auto slots = part->parameter_slots();
  const auto down = std::ranges::find_if(slots, [](const nn::ParameterSlot& slot) {
    return slot.parts[0].key == "model.layers.1.mlp.down_proj.weight";
  });
  ASSERT_NE(down, slots.end());
  *down->grad = at::zeros(down->value->sizes());
  part->accumulate(small_leaf());
  EXPECT_TRUE(
      same_bits(*down->grad, gradients_of(*whole).at("model.layers.1.mlp.down_proj.weight")));
  for (const auto& slot : slots) {
    EXPECT_EQ(slot.grad->defined(), slot.grad == down->grad);
  }
}

}  // namespace
}  // namespace lorascale::models::decoder
