// Generation: the cache changes nothing but the time, draws follow the nucleus, seeds repeat.
#include "models/decoder/generate.hpp"

#include <ATen/core/grad_mode.h>

#include <set>

#include "support/tensors.hpp"
#include "tiny_decoder.hpp"

namespace lorascale::models::decoder {
namespace {

using test::expect_close;

std::vector<Json> families() {
  Json mistral = tiny_json("mistral");
  mistral["sliding_window"] = 4;
  Json mixed = tiny_json("qwen2");
  mixed.update({{"use_sliding_window", true}, {"sliding_window", 3}, {"max_window_layers", 1}});
  return {tiny_json("llama"), mistral, mixed, tiny_json("qwen3")};
}

at::Tensor last_logits(Decoder& model, const std::vector<std::int32_t>& ids) {
  return model.logits(leaf_of({ids}))[static_cast<std::int64_t>(ids.size()) - 1];
}

TEST(GenerateTest, GreedyWithCacheEqualsGreedyWithout) {
  for (const auto& json : families()) {
    SCOPED_TRACE(json["model_type"].get<std::string>());
    const auto model = golden_model(json);
    const auto prompt = golden_ids(0, 5);
    GenerationSettings settings;
    settings.max_tokens = 12;
    const auto generated = generate(*model, prompt, settings);
    auto ids = prompt;
    for (int i = 0; i < 12; ++i) {
      ids.push_back(static_cast<std::int32_t>(last_logits(*model, ids).argmax().item<int>()));
    }
    EXPECT_EQ(generated, std::vector<std::int32_t>(ids.begin() + 5, ids.end()));
  }
}

// A prompt may be fed at once, token by token, or in pieces.
TEST(GenerateTest, TheCacheTakesPiecesOfAnySize) {
  for (const auto& json : families()) {
    SCOPED_TRACE(json["model_type"].get<std::string>());
    const auto model = golden_model(json);
    const at::NoGradGuard no_grad;
    const auto ids = golden_ids(3, 11);
    const auto expected = last_logits(*model, ids);
    for (const auto& pieces : std::vector<std::vector<std::size_t>>{
             {11}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {4, 1, 6}}) {
      auto caches = model->make_caches(11);
      at::Tensor logits;
      std::size_t first = 0;
      for (const auto count : pieces) {
        logits = model->decode(std::span(ids).subspan(first, count), caches);
        first += count;
      }
      expect_close(logits, expected, 1e-5);
      EXPECT_EQ(caches.front().length, 11);
    }
  }
}

TEST(GenerateTest, EndsAtStopTokensAndLengths) {
  const auto model = golden_model(tiny_json("llama"));
  const auto prompt = golden_ids(0, 5);
  GenerationSettings settings;
  settings.max_tokens = 6;
  const auto free = generate(*model, prompt, settings);
  ASSERT_EQ(free.size(), 6U);
  const auto stop = free[3];
  const auto first = std::find(free.begin(), free.end(), stop);
  settings.stop_ids = {9999, stop};
  EXPECT_EQ(generate(*model, prompt, settings), std::vector<std::int32_t>(free.begin(), first));
  settings.stop_ids = {};
  settings.max_tokens = 0;
  EXPECT_TRUE(generate(*model, prompt, settings).empty());
}

TEST(GenerateTest, SeedsRepeatAndDiffer) {
  const auto model = golden_model(tiny_json("llama"));
  const auto prompt = golden_ids(0, 3);
  GenerationSettings settings;
  settings.max_tokens = 20;
  settings.temperature = 1.5;
  std::set<std::vector<std::int32_t>> texts;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    settings.seed = seed;
    const auto text = generate(*model, prompt, settings);
    EXPECT_EQ(generate(*model, prompt, settings), text);
    texts.insert(text);
  }
  EXPECT_EQ(texts.size(), 5U);
  // A shorter text is the beginning of a longer one.
  const auto longer = generate(*model, prompt, settings);
  settings.max_tokens = 7;
  EXPECT_EQ(generate(*model, prompt, settings),
            std::vector<std::int32_t>(longer.begin(), longer.begin() + 7));
}

// How often each token comes up over an even grid of draws.
std::vector<double> shares(const std::vector<float>& logits, double temperature, double top_p) {
  constexpr int kDraws = 10000;
  std::vector<double> counts(logits.size());
  for (int i = 0; i < kDraws; ++i) {
    const auto token = sample_token(logits, temperature, top_p, (i + 0.5) / kDraws);
    counts[static_cast<std::size_t>(token)] += 1.0 / kDraws;
  }
  return counts;
}

TEST(SampleTokenTest, FollowsTheTemperature) {
  const std::vector<float> logits = {0.5F, 2.0F, -1.0F, 1.0F};
  for (const double temperature : {0.3, 1.0, 2.5}) {
    const auto found = shares(logits, temperature, 1.0);
    double total = 0;
    for (const float logit : logits) {
      total += std::exp(logit / temperature);
    }
    for (std::size_t i = 0; i < logits.size(); ++i) {
      EXPECT_NEAR(found[i], std::exp(logits[i] / temperature) / total, 3e-4);
    }
  }
}

// Probabilities 0.5, 0.3, 0.15, 0.05: the nucleus is the fewest that reach top_p, renormalised.
TEST(SampleTokenTest, KeepsTheNucleus) {
  const std::vector<double> p = {0.15, 0.5, 0.05, 0.3};
  std::vector<float> logits;
  for (const double value : p) {
    logits.push_back(static_cast<float>(std::log(value)));
  }
  const std::map<double, std::vector<double>> expected = {
      {0.0, {0, 1, 0, 0}},
      {0.4, {0, 1, 0, 0}},
      {0.6, {0, 0.5 / 0.8, 0, 0.3 / 0.8}},
      {0.9, {0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95}},
      {0.99, p},
      {1.0, p}};
  for (const auto& [top_p, wanted] : expected) {
    const auto found = shares(logits, 1.0, top_p);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(found[i], wanted[i], 3e-4) << "top_p " << top_p << ", token " << i;
    }
  }
}

TEST(SampleTokenTest, GreedyTakesTheLowestOfEquals) {
  const std::vector<float> logits = {1.0F, 3.0F, 3.0F, 2.0F};
  for (const double u : {0.0, 0.5, 0.999999}) {
    EXPECT_EQ(sample_token(logits, 0.0, 1.0, u), 1);
    EXPECT_EQ(sample_token(logits, 1e-9, 0.4, u), 1);
  }
}

TEST(SampleTokenTest, ExtremeLogits) {
  const std::vector<float> logits = {-1e30F, 0.0F, 1e30F, -std::numeric_limits<float>::infinity()};
  for (const double u : {0.0, 0.5, 0.99999994}) {
    EXPECT_EQ(sample_token(logits, 1.0, 1.0, u), 2);
    EXPECT_EQ(sample_token(logits, 100.0, 0.9, u), 2);
  }
  // The last draw stays within what has a probability.
  const std::vector<float> two = {0.0F, 0.0F, -std::numeric_limits<float>::infinity()};
  EXPECT_EQ(sample_token(two, 1.0, 1.0, std::nextafter(1.0, 0.0)), 1);
}

}  // namespace
}  // namespace lorascale::models::decoder
