// A residual block of a UNet or a VAE: y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) +
// time))), where a VAE has no time. Names of the parameters are diffusers'.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nn/conv2d.hpp"
#include "nn/group_norm.hpp"
#include "nn/linear_group.hpp"
#include "nn/parameter_slot.hpp"
#include "nn/site.hpp"

namespace lorascale::models::diffusion {

struct ResnetSaved {
  nn::GroupNormSaved norm1, norm2;
  nn::DeltasSaved conv1, conv2, shortcut, time;
};

class ResnetBlock {
 public:
  struct Shape {
    std::int64_t in = 0, out = 0;
    std::int64_t time = 0;  // width of the time's embedding, 0 where there is none
    std::int64_t groups = 32;
    double eps = 1e-5;
  };
  ResnetBlock(const std::string& prefix, const Shape& shape, const at::TensorOptions& options);

  // x: [samples, in, height, width]; time: silu of its embedding, [samples, width], or undefined.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& time, const nn::SampleRows* rows,
                     ResnetSaved* saved) const;
  // Gradient of x, or nothing when it is not needed; where `dtime` is defined, the time's is added
  // to it.
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& time, const nn::SampleRows* rows,
                      const ResnetSaved& saved, bool need_dx, at::Tensor& dtime) const;

  [[nodiscard]] bool trains() const;
  void add_sites(std::vector<nn::Site>& sites);
  void add_slots(std::vector<nn::ParameterSlot>& slots);

 private:
  nn::GroupNorm norm1_, norm2_;
  nn::Conv2d conv1_, conv2_;
  std::optional<nn::Conv2d> shortcut_;
  std::optional<nn::LinearGroup> time_;
};

}  // namespace lorascale::models::diffusion
