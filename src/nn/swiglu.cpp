#include "nn/swiglu.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>

#include "nn/cpu_kernels.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {

at::Tensor swiglu(const at::Tensor& gate_up) {
  const auto rows = gate_up.size(0);
  const auto d = gate_up.size(1) / 2;
  if (!has_cpu_kernels(gate_up)) {
    return at::silu(gate_up.narrow(1, 0, d)).mul_(gate_up.narrow(1, d, d));
  }
  at::Tensor y = at::empty({rows, d}, gate_up.options());
  const float* in = gate_up.const_data_ptr<float>();
  float* out = y.data_ptr<float>();
  at::parallel_for(0, rows, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      cpu::swiglu_row(in + row * 2 * d, out + row * d, d);
    }
  });
  return y;
}

void swiglu_backward(const at::Tensor& dy, at::Tensor& gate_up) {
  const auto rows = gate_up.size(0);
  const auto d = gate_up.size(1) / 2;
  if (!has_cpu_kernels(gate_up)) {
    at::Tensor gate = gate_up.narrow(1, 0, d);
    at::Tensor up = gate_up.narrow(1, d, d);
    const at::Tensor dgate = at::silu_backward(dy * up, gate);
    up.copy_(dy * at::silu(gate));
    gate.copy_(dgate);
    return;
  }
  const float* grad = dy.const_data_ptr<float>();
  float* joint = gate_up.data_ptr<float>();
  at::parallel_for(0, rows, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
    for (auto row = begin; row < end; ++row) {
      cpu::swiglu_backward_row(grad + row * d, joint + row * 2 * d, d);
    }
  });
}

}  // namespace lorascale::nn
