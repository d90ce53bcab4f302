#include "nn/linear_group.hpp"

#include "nn/dispatch.hpp"
#include "nn/product.hpp"

namespace lorascale::nn {

std::vector<Site> LinearGroup::sites() {
  std::vector<Site> sites;
  for (const auto& [name, out, first] : members) {
    sites.push_back({name,
                     SiteKind::kLinear,
                     weight.narrow(0, first, out),
                     bias.defined() ? bias.narrow(0, first, out) : at::Tensor(),
                     {},
                     &deltas,
                     first});
  }
  return sites;
}

void LinearGroup::add_slots(std::vector<ParameterSlot>& slots) {
  ParameterSlot of_weight{{}, &weight, &weight_grad};
  ParameterSlot of_bias{{}, &bias, &bias_grad};
  for (const auto& member : members) {
    of_weight.parts.push_back({member.name + ".weight", {member.out, in_features()}});
    of_bias.parts.push_back({member.name + ".bias", {member.out}});
  }
  slots.push_back(std::move(of_weight));
  if (bias.defined()) {
    slots.push_back(std::move(of_bias));
  }
}

at::Tensor LinearGroup::forward(const at::Tensor& x, const SampleRows* rows,
                                DeltasSaved* saved) const {
  at::Tensor y = product(x, weight.t(), bias);
  deltas.forward(x, y, rows, saved);
  return y;
}

at::Tensor LinearGroup::backward(const at::Tensor& dy, const at::Tensor& x, const SampleRows* rows,
                                 const DeltasSaved& saved, bool need_dx) const {
  const auto gradients = deltas.output_gradients(dy, saved);
  const auto& of_layer = gradients.of_layer;
  at::Tensor dx;
  if (need_dx) {
    dx = product(of_layer, weight);
  }
  if (weight_grad.defined()) {
    accumulate_product(weight_grad, of_layer.t(), x);
    if (bias_grad.defined()) {
      at::Tensor(bias_grad).add_(of_layer.sum(0, /*keepdim=*/false, sum_type(of_layer)));
    }
  }
  deltas.backward(gradients, x, rows, saved, dx);
  return dx;
}

}  // namespace lorascale::nn
