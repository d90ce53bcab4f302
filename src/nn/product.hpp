// Products of matrices by the library that is fastest at them.
#pragma once

#include <ATen/core/Tensor.h>

namespace lorascale::nn {

// a b, or a b + bias (a row); [m, k] and [k, n] of one type, transposed views as good as any. On
// CPUs libtorch gives fp32 products to BLAS; large ones go to oneDNN, as those of 16 bits do
// already, which was faster with AVX2 and with AVX-512 (docs/benchmarks.md). Sizes and strides
// alone decide, so that all ranks and all runs take the same.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});

}  // namespace lorascale::nn
