// Linear layers that share their input (q, k, v; gate, up; or a single one), computed as one
// product, with deltas of adapters on any of them: y = x W' + b, changed by each delta in turn.
// Forward and backward by hand; gradients are added to fp32 views of the flat gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "nn/parameter_slot.hpp"
#include "nn/site.hpp"

namespace lorascale::nn {

class LinearGroup {
 public:
  struct Member {
    std::string name;  // module path in the checkpoint, without ".weight"
    std::int64_t out = 0;
    std::int64_t first = 0;  // first row of the joint weight
  };

  std::vector<Member> members;
  at::Tensor weight;       // [total out, in]
  at::Tensor bias;         // [total out], or undefined
  at::Tensor weight_grad;  // fp32 like weight; defined when all weights are trained
  at::Tensor bias_grad;
  Deltas deltas;

  [[nodiscard]] std::int64_t in_features() const { return weight.size(1); }
  [[nodiscard]] std::int64_t out_features() const { return weight.size(0); }
  // True where a gradient of this group's own parameters is wanted.
  [[nodiscard]] bool trains() const { return weight_grad.defined() || !deltas.empty(); }
  // A site for each member. The group must stay where it is.
  std::vector<Site> sites();
  // The weight's slot, and the bias's where there is one; the members are their parts.
  void add_slots(std::vector<ParameterSlot>& slots);

  // x: [tokens, in] -> [tokens, total out]. `rows` is null outside training: no dropout.
  at::Tensor forward(const at::Tensor& x, const SampleRows* rows, DeltasSaved* saved) const;
  // dy: [tokens, total out]. Adds the parameters' gradients; returns dx, or nothing when it is not
  // needed.
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                      const DeltasSaved& saved, bool need_dx) const;
};

}  // namespace lorascale::nn
