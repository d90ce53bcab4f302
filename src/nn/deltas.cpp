#include "nn/deltas.hpp"

#include <utility>

namespace lorascale::nn {

void Deltas::attach(std::int64_t first, std::int64_t count, std::unique_ptr<Delta> delta) {
  attached_.push_back({first, count, std::move(delta)});
}

std::int64_t Deltas::kept_width() const {
  std::int64_t width = 0;
  for (const auto& attached : attached_) {
    width += attached.delta->kept_width();
  }
  return width;
}

void Deltas::forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
                     DeltasSaved* saved) const {
  for (const auto& attached : attached_) {
    at::Tensor channels = attached.channels_of(y);
    attached.delta->forward(x, channels, rows, saved != nullptr ? &saved->emplace_back() : nullptr);
  }
}

Deltas::OutputGradients Deltas::output_gradients(const at::Tensor& dy,
                                                 const DeltasSaved& saved) const {
  OutputGradients gradients{dy, std::vector<at::Tensor>(attached_.size())};
  for (std::size_t i = attached_.size(); i-- > 0;) {
    const auto& attached = attached_[i];
    gradients.of_deltas[i] = attached.channels_of(gradients.of_layer);
    if (attached.delta->changes_output_gradient()) {
      // A copy each time: those applied later look into the tensor as it was.
      gradients.of_layer = gradients.of_layer.clone();
      at::Tensor channels = attached.channels_of(gradients.of_layer);
      attached.delta->to_output_gradient(channels, saved[i]);
    }
  }
  return gradients;
}

void Deltas::backward(const OutputGradients& gradients, const at::Tensor& x, const SampleRows* rows,
                      const DeltasSaved& saved, at::Tensor& dx) const {
  for (std::size_t i = 0; i < attached_.size(); ++i) {
    attached_[i].delta->backward(gradients.of_deltas[i], x, rows, saved[i], dx);
  }
}

}  // namespace lorascale::nn
