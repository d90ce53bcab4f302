#include "nn/product.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/Version.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "nn/cpu_pair_products.hpp"
#include "nn/cpu_products.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

// Below this many multiplications oneDNN's setting up costs more than its product gains.
constexpr std::int64_t kLeastForOneDnn = std::int64_t{1} << 23;

// oneDNN takes the second factor turned (as weights stand for x W') as fast as it multiplies; in
// rows (as for dy W), too, with AVX-512. With AVX2 few rows of the first factor meet such a second
// one where it stands, and rows a multiple of 2 KiB apart share too few lines of the cache: 50 to
// 75 GFLOP/s, and BLAS 80 to 100.
bool has_avx512() {
  static const bool has = at::get_cpu_capability().starts_with("AVX512");
  return has;
}

bool suits_onednn(const at::Tensor& a, const at::Tensor& b) {
  constexpr std::int64_t kFewRows = 1024, kBadStep = 2048 / sizeof(float);
  return b.stride(0) == 1 || has_avx512() || a.size(0) >= kFewRows || b.size(1) % kBadStep != 0;
}

// oneDNN's fp32 product is in libtorch, but not under a name of at::.
using OneDnnLinear = at::Tensor(const at::Tensor& x, const at::Tensor& weight,
                                const std::optional<at::Tensor>& bias, std::string_view attribute,
                                c10::List<std::optional<at::Scalar>> scalars,
                                std::optional<std::string_view> algorithm);

// Nothing where this libtorch was built without it.
std::optional<c10::TypedOperatorHandle<OneDnnLinear>> find_onednn_linear() {
  if (!at::globalContext().hasMKLDNN()) {
    return std::nullopt;
  }
  const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!found) {
    return std::nullopt;
  }
  return found->typed<OneDnnLinear>();
}

const std::optional<c10::TypedOperatorHandle<OneDnnLinear>>& onednn_linear() {
  static const auto linear = find_onednn_linear();
  return linear;
}

bool is_onednn_product(const at::Tensor& a, const at::Tensor& b) {
  const bool large = a.size(0) * a.size(1) * b.size(1) >= kLeastForOneDnn;
  if (!a.is_cpu() || !a.is_contiguous() || !large || !onednn_linear().has_value()) {
    return false;
  }
  // mm() gives bf16 to oneDNN, too, but as another of its operators, which was slower where the
  // result is large.
  return a.scalar_type() == at::kFloat ? suits_onednn(a, b)
                                       : a.scalar_type() == at::kBFloat16 && b.stride(0) == 1;
}

// A second factor with few columns, as LoRA's A and B are: libraries reach a tenth (ranks up to 8)
// to four fifths of the core's rate there. A turned one is copied, which few rows of the first
// factor do not repay.
constexpr std::int64_t kLeastRowsForACopy = 256;
// One sum in fp32 over many more loses digits.
constexpr std::int64_t kInnerAtATime = 1024;

bool is_thin_product(const at::Tensor& a, const at::Tensor& b) {
  return a.is_cpu() && a.scalar_type() == at::kFloat && a.stride(1) == 1 &&
         (b.stride(1) == 1 || a.size(0) >= kLeastRowsForACopy) && b.size(1) <= kThin &&
         b.size(0) > 0;
}

at::Tensor thin_product(const at::Tensor& a, const at::Tensor& b) {
  const auto inner = b.size(0), columns = b.size(1), width = cpu::padded(columns, cpu::kFewColumns);
  const at::Tensor right = width == columns && b.is_contiguous()
                               ? b
                               : at::constant_pad_nd(b, {0, width - columns}).contiguous();
  at::Tensor result = at::empty({a.size(0), width}, a.options());
  const auto* left = a.const_data_ptr<float>();
  const auto* right_rows = right.const_data_ptr<float>();
  auto* out = result.mutable_data_ptr<float>();
  at::parallel_for(0, a.size(0), row_grain(inner), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = 0; first < inner; first += kInnerAtATime) {
      cpu::small_product({left + begin * a.stride(0) + first, a.stride(0), 1},
                         right_rows + first * width, width, out + begin * width, width, end - begin,
                         std::min(kInnerAtATime, inner - first), width, first > 0);
    }
  });
  return result.narrow(1, 0, columns).contiguous();
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  if (is_slow_in_its_type(a)) {
    return product(fp32(a), fp32(b), fp32(bias)).to(at::kBFloat16);
  }
  if (!bias.defined() && is_thin_product(a, b)) {
    return thin_product(a, b);
  }
  if (is_onednn_product(a, b)) {
    const std::optional<at::Tensor> row = bias.defined() ? std::optional(bias) : std::nullopt;
    return onednn_linear()->call(a, b.t(), row, "none", c10::List<std::optional<at::Scalar>>(), "");
  }
  return bias.defined() ? at::addmm(bias, a, b) : at::mm(a, b);
}

void add_product(at::Tensor& y, const at::Tensor& a, const at::Tensor& b, double scale) {
  if (is_slow_in_its_type(a)) {
    y.add_(at::mm(fp32(a), fp32(b)), scale);
  } else {
    at::addmm_out(y, y, a, b, /*beta=*/1, scale);
  }
}

}  // namespace lorascale::nn
