// Shared by the tests of adapters: a model of four linear layers, two of them in one group, and a
// convolution, as an adapter sees it. Its weights follow from their names.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "adapters/adapter.hpp"
#include "base/hash.hpp"
#include "nn/linear_group.hpp"
#include "support/tensors.hpp"

namespace lorascale::adapters::test {

struct SmallModel {
  nn::LinearGroup joint;  // layers.0: q_proj [8, 6] and v_proj [5, 6]
  nn::LinearGroup up;     // layers.0: up_proj [7, 8]
  nn::LinearGroup query;  // layers.1: q_proj [8, 6]
  at::Tensor kernel;      // stem.conv [4, 3, 2, 2]
  nn::Deltas of_kernel;

  explicit SmallModel(const at::TensorOptions& options = at::kFloat) {
    joint.members = {{"model.layers.0.q_proj", 8, 0}, {"model.layers.0.v_proj", 5, 8}};
    up.members = {{"model.layers.0.up_proj", 7, 0}};
    query.members = {{"model.layers.1.q_proj", 8, 0}};
    joint.weight = weight({13, 6}, "joint", options);
    up.weight = weight({7, 8}, "up", options);
    query.weight = weight({8, 6}, "query", options);
    kernel = weight({4, 3, 2, 2}, "kernel", options);
  }

  AdaptedModel adapted() {
    AdaptedModel model;
    for (auto* group : {&joint, &up, &query}) {
      for (auto& site : group->sites()) {
        model.sites.push_back(std::move(site));
      }
    }
    model.sites.push_back(
        {"model.stem.conv", nn::SiteKind::kConv2d, kernel, {}, {}, &of_kernel, 0});
    model.without_adapter = {"lm_head"};
    model.base = "bases/Small";
    return model;
  }

 private:
  static at::Tensor weight(at::IntArrayRef shape, const std::string& name,
                           const at::TensorOptions& options) {
    return lorascale::test::noise(shape, fnv1a64(name)).to(options);
  }
};

}  // namespace lorascale::adapters::test
