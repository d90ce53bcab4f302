#include "nn/linear_group.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

bool drops(const LoraBranch& branch, const DropoutKey* key) {
  return key != nullptr && branch.dropout > 0;
}

at::Tensor mask_of(const LoraBranch& branch, const DropoutKey& key, const at::Tensor& x) {
  return dropout_scale(key, branch.module, branch.dropout, x.size(1), x.options());
}

}  // namespace

at::Tensor LinearGroup::member_rows(const at::Tensor& joint, std::size_t member) const {
  return joint.narrow(0, members[member].first, members[member].out);
}

at::Tensor LinearGroup::member_columns(const at::Tensor& y, std::size_t member) const {
  return y.narrow(1, members[member].first, members[member].out);
}

at::Tensor LinearGroup::forward(const at::Tensor& x, const DropoutKey* key,
                                LinearSaved* saved) const {
  at::Tensor y = bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
  for (const auto& branch : branches) {
    const at::Tensor input = drops(branch, key) ? x * mask_of(branch, *key, x) : x;
    at::Tensor low_rank = at::mm(input, branch.a.t());
    at::Tensor out = member_columns(y, branch.member);
    at::addmm_out(out, out, low_rank, branch.b.t(), /*beta=*/1, branch.scale);
    if (saved != nullptr) {
      saved->low_rank.push_back(std::move(low_rank));
    }
  }
  return y;
}

at::Tensor LinearGroup::backward(const at::Tensor& dy, const at::Tensor& x, const DropoutKey* key,
                                 const LinearSaved& saved, bool need_dx) const {
  at::Tensor dx;
  if (need_dx) {
    dx = at::mm(dy, weight);
  }
  if (weight_grad.defined()) {
    accumulate_product(weight_grad, dy.t(), x);
    if (bias_grad.defined()) {
      at::Tensor(bias_grad).add_(dy.sum(0, /*keepdim=*/false, at::kFloat));
    }
  }
  for (std::size_t i = 0; i < branches.size(); ++i) {
    const auto& branch = branches[i];
    const at::Tensor dout = member_columns(dy, branch.member);
    const at::Tensor low_rank_grad = at::mm(dout, branch.b);  // [tokens, rank]
    accumulate_product(branch.grad_b, dout.t(), saved.low_rank[i], branch.scale);
    if (drops(branch, key)) {
      const at::Tensor mask = mask_of(branch, *key, x);
      accumulate_product(branch.grad_a, low_rank_grad.t(), x * mask, branch.scale);
      if (need_dx) {
        dx.addcmul_(mask, at::mm(low_rank_grad, branch.a), branch.scale);
      }
    } else {
      accumulate_product(branch.grad_a, low_rank_grad.t(), x, branch.scale);
      if (need_dx) {
        at::addmm_out(dx, dx, low_rank_grad, branch.a, /*beta=*/1, branch.scale);
      }
    }
  }
  return dx;
}

}  // namespace lorascale::nn
