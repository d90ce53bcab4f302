#include "nn/segment_sum.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/segment_reduce.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.hpp"

namespace lorascale::nn {
namespace {

// Equal ids side by side, each id's positions in ascending order.
struct Segments {
  std::vector<std::int64_t> positions;  // [ids]
  std::vector<std::int64_t> rows;       // [segments], distinct
  std::vector<std::int64_t> lengths;    // [segments]

  explicit Segments(std::span<const std::int32_t> ids) : positions(ids.size()) {
    std::iota(positions.begin(), positions.end(), 0);
    const auto id_at = [&](std::int64_t position) {
      return ids[static_cast<std::size_t>(position)];
    };
    std::ranges::stable_sort(positions, {}, id_at);
    for (const auto position : positions) {
      if (rows.empty() || rows.back() != id_at(position)) {
        rows.push_back(id_at(position));
        lengths.push_back(0);
      }
      ++lengths.back();
    }
  }
};

at::Tensor to_device(const std::vector<std::int64_t>& values, at::Device device) {
  return at::tensor(at::IntArrayRef(values), at::TensorOptions().dtype(at::kLong)).to(device);
}

}  // namespace

void add_rows(const at::Tensor& table, std::span<const std::int32_t> ids, const at::Tensor& grad) {
  LS_ASSERT(table.scalar_type() == at::kFloat &&
            grad.size(0) == static_cast<std::int64_t>(ids.size()));
  if (ids.empty()) {
    return;
  }
  const Segments segments(ids);
  const auto device = table.device();
  const at::Tensor sorted =
      at::index_select(grad, 0, to_device(segments.positions, device)).to(at::kFloat);
  const at::Tensor sums =
      at::segment_reduce(sorted, "sum", to_device(segments.lengths, device),
                         /*indices=*/std::nullopt, /*offsets=*/std::nullopt, /*axis=*/0,
                         /*unsafe=*/true);
  const at::Tensor rows = to_device(segments.rows, device);
  at::Tensor(table).index_copy_(0, rows, at::index_select(table, 0, rows).add_(sums));
}

}  // namespace lorascale::nn
