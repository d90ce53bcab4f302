#include "train/memory_forecast.hpp"

#include <ATen/core/Tensor.h>

#include <algorithm>

namespace lorascale::train {

MemoryForecast forecast_memory(const Session& session, std::int64_t leaf_size,
                               std::int64_t row_length) {
  MemoryForecast forecast;
  for (const auto& slot : session.model->parameter_slots()) {
    forecast.model_parameters += slot.value->numel();
    // A trained fp32 weight is a view of the master vector, counted there.
    if (!session.trainable.is_full() || slot.value->scalar_type() != at::kFloat) {
      forecast.weights += static_cast<double>(slot.value->nbytes());
    }
  }
  double state_vectors = 2;  // master and gradient
  if (session.config.noise.horizon.value > 0) {
    state_vectors += 2;  // the sum so far, and Adam's metric
  }
  for (const auto& [name, tensor] : session.optimizer->state()) {
    state_vectors += tensor.numel() > 1 ? 1 : 0;
  }
  forecast.trained_state =
      state_vectors * 4.0 * static_cast<double>(session.trainable.parameters->size());
  forecast.temporary = 4 * 4.0 * static_cast<double>(session.trainable.parameters->size());

  const auto& c = session.model->config();
  const auto bytes = static_cast<double>(c10::elementSize(session.model->dtype()));
  const auto tokens = static_cast<double>(leaf_size * row_length);
  const auto attention =
      static_cast<double>((2 * c.heads + 2 * c.kv_heads) * c.head_dim);  // q, k, v and the result
  double low_rank = 0;
  for (const auto& module : session.trainable.modules) {
    low_rank += static_cast<double>(module.rank);
  }
  const auto layers = static_cast<double>(c.layers);
  const auto hidden = static_cast<double>(c.hidden);
  const auto intermediate = static_cast<double>(c.intermediate);
  const double kept_per_block = 2 * hidden + attention + 2 * intermediate;
  const double kept =
      session.config.model.recompute ? layers * hidden + kept_per_block : layers * kept_per_block;
  // Above what is kept: one block's temporaries at their largest, in the MLP's backward.
  const double temporary = 2 * intermediate + 4 * hidden;
  forecast.activations = tokens * bytes * (kept + low_rank + temporary);
  const double chunk = session.model->device().is_cpu() ? double(1 << 23) : double(1 << 28);
  forecast.logits = bytes * std::min(chunk, tokens * static_cast<double>(c.vocabulary));
  return forecast;
}

}  // namespace lorascale::train
