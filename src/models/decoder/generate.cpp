#include "models/decoder/generate.hpp"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "base/rng.hpp"

namespace lorascale::models::decoder {

std::int32_t sample_token(std::span<const float> logits, double temperature, double top_p,
                          double u) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (temperature <= 0) {
    return static_cast<std::int32_t>(best - logits.begin());
  }
  std::vector<double> weights(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    weights[i] = std::exp((double{logits[i]} - double{*best}) / temperature);
  }
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return weights[static_cast<std::size_t>(a)] > weights[static_cast<std::size_t>(b)];
  });
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  // The nucleus: the fewest tokens whose probabilities reach top_p.
  double mass = 0;
  std::size_t kept = 0;
  while (kept < order.size() && (kept == 0 || mass < top_p * total)) {
    mass += weights[static_cast<std::size_t>(order[kept++])];
  }
  double rest = u * mass;
  for (std::size_t i = 0; i < kept; ++i) {
    rest -= weights[static_cast<std::size_t>(order[i])];
    if (rest < 0) {
      return order[i];
    }
  }
  return order[kept - 1];
}

std::vector<std::int32_t> generate(const Decoder& model, std::span<const std::int32_t> prompt,
                                   const GenerationSettings& settings) {
  LS_ASSERT(!prompt.empty());
  const auto most = static_cast<std::int64_t>(prompt.size()) + settings.max_tokens;
  require_positions(model.config(), most,
                    "a prompt of " + std::to_string(prompt.size()) + " and up to " +
                        std::to_string(settings.max_tokens) + " new tokens");
  const at::NoGradGuard no_grad;
  auto caches = model.make_caches(static_cast<std::int64_t>(prompt.size()) + settings.max_tokens);
  std::vector<std::int32_t> generated;
  at::Tensor logits = model.decode(prompt, caches);
  while (static_cast<std::int64_t>(generated.size()) < settings.max_tokens) {
    beat("generating text");
    const at::Tensor host = logits.to(at::kFloat).cpu().contiguous();
    const auto bits = philox4x32({static_cast<std::uint32_t>(generated.size()), 0, 0, 0x74657874U},
                                 philox_key(settings.seed));
    const auto token =
        sample_token({host.const_data_ptr<float>(), static_cast<std::size_t>(host.numel())},
                     settings.temperature, settings.top_p, double{uniform24(bits[0])});
    if (std::find(settings.stop_ids.begin(), settings.stop_ids.end(), token) !=
        settings.stop_ids.end()) {
      break;
    }
    generated.push_back(token);
    if (static_cast<std::int64_t>(generated.size()) < settings.max_tokens) {
      logits = model.decode(std::span(&token, 1), caches);
    }
  }
  return generated;
}

}  // namespace lorascale::models::decoder
