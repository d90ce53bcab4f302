// The deltas on one layer: each changes what the one before it made of the layer's output, in the
// order in which they were attached.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "nn/delta.hpp"

namespace lorascale::nn {

// What a backward of the layer needs besides x: of each delta.
using DeltasSaved = std::vector<DeltaSaved>;

class Deltas {
 public:
  // On `count` channels of the layer's output from `first` on.
  void attach(std::int64_t first, std::int64_t count, std::unique_ptr<Delta> delta);
  void clear() { attached_.clear(); }
  [[nodiscard]] bool empty() const { return attached_.empty(); }
  [[nodiscard]] std::size_t size() const { return attached_.size(); }
  [[nodiscard]] const Delta& operator[](std::size_t i) const { return *attached_[i].delta; }
  // Elements that they keep for each row of a linear layer's x, or output position of a
  // convolution.
  [[nodiscard]] std::int64_t kept_width() const;

  // Changes `y`, the layer's output [rows, channels, ...], in place. `rows` and `saved` as Delta
  // has them.
  void forward(const at::Tensor& x, at::Tensor& y, const SampleRows* rows,
               DeltasSaved* saved) const;

  // The gradients of what each delta made, and of the layer's own output.
  struct OutputGradients {
    at::Tensor of_layer;
    std::vector<at::Tensor> of_deltas;
  };
  // Of dy, that of the last one's result, which stays as it is.
  [[nodiscard]] OutputGradients output_gradients(const at::Tensor& dy,
                                                 const DeltasSaved& saved) const;
  // Adds the gradients of their parameters, and to `dx`, where that is defined, what reaches x
  // through them.
  void backward(const OutputGradients& gradients, const at::Tensor& x, const SampleRows* rows,
                const DeltasSaved& saved, at::Tensor& dx) const;

 private:
  struct Attached {
    std::int64_t first = 0, count = 0;
    std::unique_ptr<Delta> delta;
    [[nodiscard]] at::Tensor channels_of(const at::Tensor& y) const {
      return y.narrow(1, first, count);
    }
  };

  std::vector<Attached> attached_;
};

}  // namespace lorascale::nn
