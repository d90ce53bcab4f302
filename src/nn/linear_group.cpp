#include "nn/linear_group.hpp"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "nn/dispatch.hpp"

namespace lorascale::nn {

std::vector<Site> LinearGroup::sites() {
  std::vector<Site> sites;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto& [name, out, first] = members[i];
    sites.push_back({name, SiteKind::kLinear, weight.narrow(0, first, out), {}, &deltas, i});
  }
  return sites;
}

std::int64_t LinearGroup::kept_width() const {
  std::int64_t width = 0;
  for (const auto& attached : deltas) {
    width += attached.delta->kept_width();
  }
  return width;
}

at::Tensor LinearGroup::columns(const at::Tensor& y, std::size_t member) const {
  return y.narrow(1, members[member].first, members[member].out);
}

at::Tensor LinearGroup::forward(const at::Tensor& x, const SampleRows* rows,
                                LinearSaved* saved) const {
  at::Tensor y = bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
  for (const auto& [member, delta] : deltas) {
    at::Tensor out = columns(y, member);
    delta->forward(x, out, rows, saved != nullptr ? &saved->deltas.emplace_back() : nullptr);
  }
  return y;
}

// The gradient of x W' + b: dy itself, unless a delta scales what it is given. The last delta that
// was applied comes first.
at::Tensor LinearGroup::output_gradient(const at::Tensor& dy, const LinearSaved& saved) const {
  if (std::ranges::none_of(
          deltas, [](const auto& attached) { return attached.delta->changes_output_gradient(); })) {
    return dy;
  }
  at::Tensor result = dy.clone();
  for (std::size_t i = deltas.size(); i-- > 0;) {
    at::Tensor of_member = columns(result, deltas[i].member);
    deltas[i].delta->to_output_gradient(of_member, saved.deltas[i]);
  }
  return result;
}

at::Tensor LinearGroup::backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                                 const LinearSaved& saved, bool need_dx) const {
  const at::Tensor base_dy = output_gradient(dy, saved);
  at::Tensor dx;
  if (need_dx) {
    dx = at::mm(base_dy, weight);
  }
  if (weight_grad.defined()) {
    accumulate_product(weight_grad, base_dy.t(), x);
    if (bias_grad.defined()) {
      at::Tensor(bias_grad).add_(base_dy.sum(0, /*keepdim=*/false, sum_type(base_dy)));
    }
  }
  for (std::size_t i = 0; i < deltas.size(); ++i) {
    deltas[i].delta->backward(columns(dy, deltas[i].member), x, rows, saved.deltas[i], dx);
  }
  return dx;
}

}  // namespace lorascale::nn
