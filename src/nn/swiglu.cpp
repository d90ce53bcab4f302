#include "nn/swiglu.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>

#include "base/error.hpp"
#include "nn/cpu_rows.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {

at::Tensor swiglu(const at::Tensor& gate_up) {
  const auto rows = gate_up.size(0);
  const auto d = gate_up.size(1) / 2;
  if (!has_cpu_kernels(gate_up)) {
    return at::silu(gate_up.narrow(1, 0, d)).mul_(gate_up.narrow(1, d, d));
  }
  at::Tensor y = at::empty({rows, d}, gate_up.options());
  with_element_type(gate_up, [&]<class T>() {
    const T* in = gate_up.const_data_ptr<T>();
    T* out = y.data_ptr<T>();
    at::parallel_for(0, rows, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
      Row<T> joint(2 * d), y_row(d);
      for (auto row = begin; row < end; ++row) {
        cpu::swiglu_row(joint.read(in + row * gate_up.stride(0), 2 * d),
                        y_row.write(out + row * d, d), d);
        y_row.put();
      }
    });
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
  LS_ASSERT(dy.stride(1) == 1);
  with_element_type(gate_up, [&]<class T>() {
    const T* grad = dy.const_data_ptr<T>();
    T* out = gate_up.data_ptr<T>();
    at::parallel_for(0, rows, row_grain(d), [&](std::int64_t begin, std::int64_t end) {
      Row<T> dy_row(d), joint(2 * d);
      for (auto row = begin; row < end; ++row) {
        cpu::swiglu_backward_row(dy_row.read(grad + row * dy.stride(0), d),
                                 joint.update(out + row * gate_up.stride(0), 2 * d), d);
        joint.put();
      }
    });
  });
}

}  // namespace lorascale::nn
