// Linear layers that share their input (q, k, v; gate, up; or a single one), computed as one
// product, with a LoRA adapter on any of them: y = x W' + b + s (drop(x) A') B'. Forward and
// backward by hand; gradients are added to fp32 views of the flat gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "nn/dropout.hpp"

namespace lorascale::nn {

// The adapter of one member. a, b are in the model's type: views of the master vector, or rounded
// copies.
struct LoraBranch {
  std::size_t member = 0;  // of LinearGroup::members
  std::int64_t rank = 0;
  double scale = 1.0;  // alpha / rank, or alpha / sqrt(rank)
  double dropout = 0.0;
  std::uint32_t module = 0;  // distinguishes the dropout of one module from another's
  at::Tensor a;              // [rank, in]
  at::Tensor b;              // [out, rank]
  at::Tensor grad_a;         // fp32 [rank, in]
  at::Tensor grad_b;         // fp32 [out, rank]
};

// What a backward needs besides the input.
struct LinearSaved {
  std::vector<at::Tensor> low_rank;  // [branches] drop(x) A', [tokens, rank]
};

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
  std::vector<LoraBranch> branches;

  [[nodiscard]] std::int64_t in_features() const { return weight.size(1); }
  [[nodiscard]] std::int64_t out_features() const { return weight.size(0); }
  // True where a gradient of this group's own parameters is wanted.
  [[nodiscard]] bool trains() const { return weight_grad.defined() || !branches.empty(); }
  // The rows of `joint` (weight, bias or an output's columns transposed) that belong to a member.
  [[nodiscard]] at::Tensor member_rows(const at::Tensor& joint, std::size_t member) const;

  // x: [tokens, in] -> [tokens, total out]. `key` is null outside training: no dropout.
  at::Tensor forward(const at::Tensor& x, const DropoutKey* key, LinearSaved* saved) const;
  // dy: [tokens, total out]. Adds the parameters' gradients; returns dx, or nothing when it is not
  // needed.
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x, const DropoutKey* key,
                      const LinearSaved& saved, bool need_dx) const;

 private:
  [[nodiscard]] at::Tensor member_columns(const at::Tensor& y, std::size_t member) const;
};

}  // namespace lorascale::nn
