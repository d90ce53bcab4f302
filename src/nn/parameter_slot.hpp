// A place in a model where a weight lives, so that it can be loaded, trained, moved into a flat
// vector and saved without knowing the model.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lorascale::nn {

struct ParameterSlot {
  struct Part {
    std::string key;  // in the checkpoint, e.g. "model.layers.0.self_attn.q_proj.weight"
    std::vector<std::int64_t> shape;
  };
  std::vector<Part> parts;  // stacked along the first dimension, in this order
  at::Tensor* value = nullptr;
  at::Tensor* grad = nullptr;  // fp32 like value; undefined while the weight is frozen
};

}  // namespace lorascale::nn
