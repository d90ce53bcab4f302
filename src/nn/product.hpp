// Products of matrices by what is fastest at them.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorascale::nn {

// a b, or a b + bias (a row); [m, k] and [k, n] of one type, transposed views as good as any. On
// CPUs libtorch gives fp32 products to BLAS: large ones go to oneDNN here, as those of 16 bits do
// already, and thin ones to a kernel of our own, which was faster with AVX2 and with AVX-512
// (docs/benchmarks.md). Type, sizes, strides and the instructions that the CPU has decide, so that
// all ranks on equal machines and all runs take the same.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});

// y += scale * a b, in place; what is added is formed in fp32 where y is of 16 bits.
void add_product(at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double scale);

}  // namespace lorascale::nn
