#include "adapters/formats/low_rank.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace lorascale::adapters {
namespace {

// B A = left core right', with orthonormal columns of left [out, k] and right [in, n].
struct Core {
  at::Tensor left, core, right;
};

Core core_of(const at::Tensor& a, const at::Tensor& b) {
  const auto [right, of_a] = at::linalg_qr(a.t());
  const auto [left, of_b] = at::linalg_qr(b);
  return {left, at::mm(of_b, of_a.t()), right};
}

at::Tensor matrix(const at::Tensor& factor) {
  return factor.flatten(1).to(at::kDouble);
}

double norm_of(const at::Tensor& a, const at::Tensor& b) {
  return at::linalg_vector_norm(core_of(a, b).core).item<double>();
}

// An alpha that fp32 holds, as files of some forms have it, for a scale of about `scale`.
double alpha_for(double scale, std::int64_t rank, const LoraSettings& settings) {
  const double of_one = 1 / settings.scale(rank, 1.0);
  const auto alpha = static_cast<float>(std::abs(scale) * of_one);
  return std::isnormal(alpha) ? alpha : static_cast<float>(of_one);
}

}  // namespace

std::int64_t RankChoice::of(const at::Tensor& values) const {
  const auto most = values.size(0);
  if (rank) {
    return std::min(*rank, most);
  }
  const at::Tensor sums = values.square().cumsum(0);
  const auto enough = share * sums[most - 1].item<double>();
  const auto fewer = (sums < enough).sum().item<std::int64_t>();
  return std::min(fewer + 1, most);
}

PeftModule truncated(const PeftModule& module, const RankChoice& choice,
                     const LoraSettings& settings) {
  LS_ASSERT(!module.magnitude.defined());
  const auto [left, core, right] = core_of(matrix(module.a), matrix(module.b));
  const auto [u, values, vh] = at::linalg_svd(core, /*full_matrices=*/false);
  const auto rank = choice.of(values);
  PeftModule result;
  result.alpha = alpha_for(module.scale, rank, settings);
  result.scale = settings.scale(rank, result.alpha);
  const double ratio = module.scale / result.scale;
  const at::Tensor roots = (values.narrow(0, 0, rank) * std::abs(ratio)).sqrt();
  // A direction of no change can still learn: as in a fresh adapter B alone is zero.
  const at::Tensor of_a = at::where(roots > 0, roots, at::ones_like(roots));
  const at::Tensor a = at::mm(vh.narrow(0, 0, rank), right.t()) * of_a.unsqueeze(1);
  const at::Tensor b = at::mm(left, u.narrow(1, 0, rank)) * roots * (ratio < 0 ? -1.0 : 1.0);
  auto shape_of_a = module.a.sizes().vec(), shape_of_b = module.b.sizes().vec();
  shape_of_a[0] = shape_of_b[1] = rank;
  result.a = a.to(at::kFloat).contiguous().view(shape_of_a);
  result.b = b.to(at::kFloat).contiguous().view(shape_of_b);
  return result;
}

PeftModule with_alpha_of(const PeftModule& module, double scale, std::int64_t rank,
                         const LoraSettings& settings) {
  auto result = module;
  result.alpha = alpha_for(scale, rank, settings);
  result.scale = settings.scale(module.a.size(0), result.alpha);
  const double part = std::sqrt(module.scale / result.scale);  // of each factor
  result.a = module.a * part;
  result.b = module.b * part;
  return result;
}

double norm_of_change(const PeftModule& module) {
  return std::abs(module.scale) * norm_of(matrix(module.a), matrix(module.b));
}

double norm_of_difference(const PeftModule& one, const PeftModule& other) {
  const at::Tensor a = at::cat({matrix(one.a), matrix(other.a)}, 0);
  const at::Tensor b = at::cat({matrix(one.b) * one.scale, matrix(other.b) * (-other.scale)}, 1);
  return norm_of(a, b);
}

}  // namespace lorascale::adapters
