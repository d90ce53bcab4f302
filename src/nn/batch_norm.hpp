// Batch normalisation (Ioffe & Szegedy 2015) of [samples, channels, height, width] over groups of a
// leaf's samples ("ghost batches", Hoffer et al. 2017): where the layer is trained, each group is
// normalised by its own mean and variance, forward and backward. Elsewhere, in evaluation and under
// an adapter, the running mean and variance make it an affine map. Arithmetic is fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lorascale::nn {

// What a backward needs: of a trained layer alone.
struct BatchNormSaved {
  at::Tensor input;                    // [samples, channels, height, width]
  std::vector<at::Tensor> mean, rstd;  // of each group, [channels] fp32
};

class BatchNorm {
 public:
  std::string name;         // module path in the checkpoint
  at::Tensor weight, bias;  // [channels]
  at::Tensor weight_grad;   // fp32 [channels]; defined when the layer is trained
  at::Tensor bias_grad;
  at::Tensor running_mean;  // fp32 [channels]
  at::Tensor running_var;   // fp32 [channels], unbiased
  double eps = 1e-5;
  std::int64_t ghost_batch = 0;  // samples of a group; 0: the whole leaf is one

  [[nodiscard]] bool trains() const { return weight_grad.defined(); }

  // With `saved` and where the layer is trained: normalises by groups, and adds each group's mean
  // and unbiased variance, times its samples, to `statistics` (fp32 [2, channels]). Error where a
  // group has one value a channel.
  at::Tensor forward(const at::Tensor& x, BatchNormSaved* saved,
                     const at::Tensor& statistics) const;
  // Of a forward with `saved`. Adds the parameters' gradients; returns dx, or nothing when it is
  // not needed. dy stays as it is.
  at::Tensor backward(const at::Tensor& dy, const BatchNormSaved& saved, bool need_dx) const;

 private:
  [[nodiscard]] at::Tensor normalise_group(const at::Tensor& x, BatchNormSaved& saved,
                                           const at::Tensor& statistics) const;
};

}  // namespace lorascale::nn
