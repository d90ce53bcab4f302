#include "nn/dispatch.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.hpp"
#include "nn/cpu_pair_products.hpp"
#include "nn/cpu_thin_gradients.hpp"

namespace lorascale::nn {
namespace {

// Tokens whose factors are held in fp32 at a time: they stay in a core's cache.
constexpr std::int64_t kTokensAtATime = 256;

// out (fp32) += scale * left right. On CPUs no library multiplies 16-bit matrices into an fp32 one,
// but every 16-bit number is one of fp32: the factors are widened, a few tokens at a time.
void add_widened(at::Tensor& out, const at::Tensor& left, const at::Tensor& right, double scale) {
  const auto tokens = right.size(0);
  const auto most = std::min(tokens, kTokensAtATime);
  const at::Tensor left_piece = at::empty({most, left.size(0)}, out.options());
  const at::Tensor right_piece = at::empty({most, right.size(1)}, out.options());
  for (std::int64_t first = 0; first < tokens; first += most) {
    const auto count = std::min(most, tokens - first);
    at::Tensor some_left = left_piece.narrow(0, 0, count);
    at::Tensor some_right = right_piece.narrow(0, 0, count);
    some_left.copy_(left.narrow(1, first, count).t());
    some_right.copy_(right.narrow(0, first, count));
    at::addmm_out(out, out, some_left.t(), some_right, /*beta=*/1, /*alpha=*/scale);
  }
}

// Tokens whose products are added up before they are added to the gradient: a sum in fp32 over many
// more loses digits.
constexpr std::int64_t kTokensOfASum = 1024;

template <class T>
void add_thin_gradient(const at::Tensor& target, const at::Tensor& a, const at::Tensor& b,
                       double scale) {
  const cpu::TokenRows<T> left{a.const_data_ptr<T>(), a.stride(1), a.size(0)};
  const cpu::TokenRows<T> right{b.const_data_ptr<T>(), b.stride(0), b.size(1)};
  float* out = target.data_ptr<float>();
  if (left.width >= right.width) {
    cpu::add_thin_gradient(left, right, b.size(0), static_cast<float>(scale),
                           {out, target.stride(0), target.stride(1)});
  } else {
    cpu::add_thin_gradient(right, left, b.size(0), static_cast<float>(scale),
                           {out, target.stride(1), target.stride(0)});
  }
}

// Of LoRA's factors; false where it is another kind of product.
bool add_as_thin_gradient(const at::Tensor& target, const at::Tensor& a, const at::Tensor& b,
                          double scale) {
  const bool fits = target.is_cpu() && target.scalar_type() == at::kFloat && a.stride(0) == 1 &&
                    b.stride(1) == 1 && std::min(a.size(0), b.size(1)) <= kThin;
  if (!fits || (a.scalar_type() != at::kFloat && a.scalar_type() != at::kBFloat16)) {
    return false;
  }
  for (std::int64_t first = 0; first < b.size(0); first += kTokensOfASum) {
    const auto count = std::min(kTokensOfASum, b.size(0) - first);
    const at::Tensor left = a.narrow(1, first, count), right = b.narrow(0, first, count);
    if (a.scalar_type() == at::kBFloat16 && cpu::has_bf16_pairs()) {
      add_thin_gradient<at::BFloat16>(target, left, right, scale);
    } else {
      add_thin_gradient<float>(target, left.to(at::kFloat), right.to(at::kFloat), scale);
    }
  }
  return true;
}

// BLAS is at its best where the wider side of a thin product is its second one.
void widening_product(at::Tensor target, const at::Tensor& a, const at::Tensor& b, double scale) {
  if (b.size(1) < kThin && b.size(1) < a.size(0)) {
    at::Tensor turned = at::zeros({b.size(1), a.size(0)}, target.options());
    add_widened(turned, b.t(), a.t(), 1);
    target.add_(turned.t(), scale);
  } else {
    add_widened(target, a, b, scale);
  }
}

}  // namespace

void accumulate_product(const at::Tensor& target, const at::Tensor& a, const at::Tensor& b,
                        double scale) {
  LS_ASSERT(target.element_size() >= 4);
  if (add_as_thin_gradient(target, a, b, scale)) {
    return;
  }
  if (a.scalar_type() == target.scalar_type()) {
    at::Tensor out = target;
    at::addmm_out(out, out, a, b, /*beta=*/1, /*alpha=*/scale);
  } else if (target.is_cpu()) {
    widening_product(target, a, b, scale);
  } else {
    target.add_(at::mm(a, b, at::kFloat), scale);  // cuBLAS rounds nowhere on the way
  }
}

}  // namespace lorascale::nn
