#include "nn/product.hpp"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <optional>
#include <string_view>

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

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  if (is_onednn_product(a, b)) {
    const std::optional<at::Tensor> row = bias.defined() ? std::optional(bias) : std::nullopt;
    return onednn_linear()->call(a, b.t(), row, "none", c10::List<std::optional<at::Scalar>>(), "");
  }
  return bias.defined() ? at::addmm(bias, a, b) : at::mm(a, b);
}

}  // namespace lorascale::nn
