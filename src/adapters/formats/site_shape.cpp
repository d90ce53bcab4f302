#include "adapters/formats/site_shape.hpp"

#include "base/error.hpp"

namespace lorascale::adapters {

at::Tensor as_stored(const nn::Site& site, const at::Tensor& factor) {
  return site.stored_as_convolution && factor.dim() == 2
             ? factor.view({factor.size(0), factor.size(1), 1, 1})
             : factor;
}

at::Tensor in_shape_of(const nn::Site& site, const at::Tensor& factor) {
  const bool one_by_one = factor.dim() == 4 && factor.size(2) == 1 && factor.size(3) == 1;
  return site.kind == nn::SiteKind::kLinear && one_by_one
             ? factor.view({factor.size(0), factor.size(1)})
             : factor;
}

bool fits(const nn::LayerScaling& scaling, const nn::Site& site) {
  return scaling.change.dim() == 1 && (site.kind == nn::SiteKind::kLinear || !scaling.of_inputs) &&
         scaling.change.size(0) == (scaling.of_inputs ? site.in_features() : site.out_features());
}

PeftModule fitted(PeftModule module, const nn::Site& site, const std::string& where) {
  if (module.scaling) {
    if (!fits(*module.scaling, site)) {
      throw_bad_input(where + " does not fit this model's layer " + site.name +
                      "; was it made for another model?");
    }
    return module;
  }
  module.a = in_shape_of(site, module.a);
  module.b = in_shape_of(site, module.b);
  if (module.a.dim() != site.weight.dim() || module.b.dim() != site.weight.dim() ||
      module.b.size(0) != site.out_features() ||
      module.a.sizes().slice(1) != site.weight.sizes().slice(1)) {
    throw_bad_input(where + " does not fit this model's layer " + site.name +
                    "; was it made for another model?");
  }
  return module;
}

}  // namespace lorascale::adapters
