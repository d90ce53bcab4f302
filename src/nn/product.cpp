#include "nn/product.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "nn/cpu_products.hpp"
#include "nn/dispatch.hpp"

namespace lorascale::nn {
namespace {

// Below this many multiplications oneDNN's setting up costs more than its product gains.
constexpr std::int64_t kLeastForOneDnn = std::int64_t{1} << 23;
// oneDNN takes the first factor row by row and the second one turned. What is not so is copied:
// that pays for a second factor that meets many rows, and for the first one never.
constexpr std::int64_t kLeastRowsForACopy = 1024;

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
  const auto rows = a.size(0);
  return a.is_cpu() && a.scalar_type() == at::kFloat && a.is_contiguous() &&
         (b.stride(0) == 1 || rows >= kLeastRowsForACopy) &&
         rows * a.size(1) * b.size(1) >= kLeastForOneDnn && onednn_linear().has_value();
}

// Factors of LoRA as they stand: the second one has few columns, in rows.
constexpr std::int64_t kThin = 64;

bool is_thin_product(const at::Tensor& a, const at::Tensor& b) {
  return a.is_cpu() && a.scalar_type() == at::kFloat && a.stride(1) == 1 && b.stride(1) == 1 &&
         b.size(1) <= kThin;
}

// In pieces of the inner dimension: one sum in fp32 over many more loses digits.
constexpr std::int64_t kInnerAtATime = 4096;

at::Tensor thin_product(const at::Tensor& a, const at::Tensor& b) {
  const auto inner = b.size(0), columns = b.size(1), width = cpu::padded(columns);
  const at::Tensor right = width == columns && b.is_contiguous()
                               ? b
                               : at::constant_pad_nd(b, {0, width - columns}).contiguous();
  const auto* right_data = right.const_data_ptr<float>();
  at::Tensor result = at::empty({a.size(0), width}, a.options());
  auto* out = result.mutable_data_ptr<float>();
  at::parallel_for(0, a.size(0), row_grain(inner), [&](std::int64_t begin, std::int64_t end) {
    const auto* left = a.const_data_ptr<float>() + begin * a.stride(0);
    const auto rows = end - begin;
    float* rows_out = out + begin * width;
    const auto multiply = [&](std::int64_t first, float* to) {
      cpu::small_product({left + first, a.stride(0), 1}, right_data + first * width, width, to,
                         width, rows, std::min(kInnerAtATime, inner - first), width, false);
    };
    multiply(0, rows_out);
    std::vector<float> piece(static_cast<std::size_t>(inner > kInnerAtATime ? rows * width : 0));
    for (auto first = kInnerAtATime; first < inner; first += kInnerAtATime) {
      multiply(first, piece.data());
      std::transform(piece.begin(), piece.end(), rows_out, rows_out, std::plus<float>());
    }
  });
  return result.narrow(1, 0, columns);
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  if (!bias.defined() && is_thin_product(a, b)) {
    return thin_product(a, b);
  }
  if (is_onednn_product(a, b)) {
    const std::optional<at::Tensor> row = bias.defined() ? std::optional(bias) : std::nullopt;
    return onednn_linear()->call(a, b.t(), row, "none", c10::List<std::optional<at::Scalar>>(), "");
  }
  return bias.defined() ? at::addmm(bias, a, b) : at::mm(a, b);
}

}  // namespace lorascale::nn
