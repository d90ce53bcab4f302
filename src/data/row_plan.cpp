#include "data/row_plan.hpp"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.hpp"

namespace lorascale::data {
namespace {

// Rows that stay open for later pieces. More packs tighter and strays further from file order.
constexpr std::size_t kOpenRows = 256;

struct PlacedPiece {
  Piece piece;
  std::int64_t row = 0;
};

}  // namespace

bool better_apart(std::span<const std::int64_t> offsets, std::int64_t row_length,
                  std::int64_t packed_rows, std::int64_t batch) {
  LS_ASSERT(batch >= 1 && !offsets.empty());
  if ((packed_rows - 1) / batch + 1 >= kFewestPackedUpdates ||
      packed_rows + 1 >= static_cast<std::int64_t>(offsets.size())) {
    return false;
  }
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    if (offsets[i + 1] - offsets[i] > row_length) {
      return false;
    }
  }
  return true;
}

RowPlan::RowPlan(std::span<const std::int64_t> offsets, std::int64_t row_length, bool packing)
    : row_length_(row_length) {
  LS_ASSERT(row_length >= 1 && !offsets.empty());
  if (packing) {
    pack(offsets);
  } else {
    row_starts_.push_back(0);
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      const auto length = std::min(offsets[i + 1] - offsets[i], row_length);
      pieces_.push_back({offsets[i], static_cast<std::int32_t>(length)});
      row_starts_.push_back(static_cast<std::int64_t>(pieces_.size()));
    }
  }
  for (const auto& piece : pieces_) {
    tokens_ += piece.length;
  }
}

void RowPlan::pack(std::span<const std::int64_t> offsets) {
  std::vector<PlacedPiece> placed;
  std::multimap<std::int64_t, std::int64_t> open;  // free tokens -> row; equal keys: oldest first
  std::int64_t rows = 0;
  const auto place = [&](const Piece& piece) {
    auto best = open.lower_bound(piece.length);
    std::int64_t row = 0;
    std::int64_t free = 0;
    if (best != open.end()) {
      row = best->second;
      free = best->first - piece.length;
      open.erase(best);
    } else {
      row = rows++;
      free = row_length_ - piece.length;
    }
    placed.push_back({piece, row});
    if (free > 0) {
      open.emplace(free, row);
    }
    if (open.size() > kOpenRows) {
      open.erase(open.begin());  // the fullest one is the least likely to be of use
    }
  };
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    for (auto first = offsets[i]; first < offsets[i + 1]; first += row_length_) {
      place({first, static_cast<std::int32_t>(std::min(row_length_, offsets[i + 1] - first))});
    }
  }
  std::stable_sort(placed.begin(), placed.end(),
                   [](const PlacedPiece& a, const PlacedPiece& b) { return a.row < b.row; });
  row_starts_.assign(static_cast<std::size_t>(rows) + 1, 0);
  for (const auto& [piece, row] : placed) {
    pieces_.push_back(piece);
    ++row_starts_[static_cast<std::size_t>(row) + 1];
  }
  std::partial_sum(row_starts_.begin(), row_starts_.end(), row_starts_.begin());
}

std::span<const Piece> RowPlan::row(std::int64_t index) const {
  LS_ASSERT(index >= 0 && index < rows());
  const auto begin = row_starts_[static_cast<std::size_t>(index)];
  const auto end = row_starts_[static_cast<std::size_t>(index) + 1];
  return {pieces_.data() + begin, static_cast<std::size_t>(end - begin)};
}

double RowPlan::efficiency() const {
  return static_cast<double>(tokens_) /
         (static_cast<double>(rows()) * static_cast<double>(row_length_));
}

}  // namespace lorascale::data
