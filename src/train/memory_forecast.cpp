#include "train/memory_forecast.hpp"

#include <ATen/core/Tensor.h>

namespace lorascale::train {
namespace {

constexpr double kFloatBytes = 4;

}  // namespace

MemoryForecast forecast_memory(const Session& session, std::int64_t leaf_size) {
  MemoryForecast forecast;
  const auto& parameters = session.parameters();
  for (const auto& slot : session.model().parameter_slots()) {
    forecast.model_parameters += slot.value->numel();
    // A trained fp32 weight is a view of the master vector, counted there.
    if (!slot.value->is_alias_of(parameters.master())) {
      forecast.weights += static_cast<double>(slot.value->nbytes());
    }
  }
  forecast.weight_holders = session.base.holders();
  forecast.weights /= forecast.weight_holders;
  double state_vectors = 2;  // master and gradient
  if (session.config.noise.horizon.value > 0) {
    state_vectors += 2;  // the sum so far, and Adam's metric
  }
  for (const auto& [name, tensor] : session.optimizer->state()) {
    state_vectors += tensor.numel() > 1 ? 1 : 0;
  }
  const double vector = kFloatBytes * static_cast<double>(parameters.size());
  forecast.trained_state = state_vectors * vector;
  forecast.temporary = static_cast<double>(optim::kStepTemporaries) * vector;
  forecast.activations = session.model().activation_bytes(
      *data::heaviest_leaf(session.workload->train(), session.key(), leaf_size));
  return forecast;
}

}  // namespace lorascale::train
