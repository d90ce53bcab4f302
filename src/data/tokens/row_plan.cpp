#include "data/tokens/row_plan.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <utility>

#include "base/error.hpp"

namespace lorascale::data {
namespace {

// Rows that stay open for later pieces. More packs tighter and strays further from file order.
constexpr std::size_t kOpenRows = 256;

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

RowPlan::RowPlan(std::span<const std::int64_t> offsets, std::int64_t row_length, bool packing,
                 CountTargets count_targets)
    : row_length_(row_length), count_targets_(std::move(count_targets)), row_starts_{0} {
  LS_ASSERT(row_length >= 1 && !offsets.empty());
  if (packing) {
    keep_rows_with_targets(packed(offsets));
  } else {
    one_for_each(offsets);
  }
  count_targets_ = {};  // what it looks at may be gone before the plan is
  for (const auto& piece : pieces_) {
    tokens_ += piece.length;
  }
}

std::int64_t RowPlan::targets_of(const Piece& piece) const {
  return !count_targets_    ? piece.length - 1
         : piece.length > 1 ? count_targets_(piece.first + 1, piece.first + piece.length)
                            : 0;
}

void RowPlan::one_for_each(std::span<const std::int64_t> offsets) {
  left_out_.of = static_cast<std::int64_t>(offsets.size()) - 1;
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    const auto whole = offsets[i + 1] - offsets[i];
    const Piece piece{offsets[i], static_cast<std::int32_t>(std::min(whole, row_length_))};
    const auto targets = targets_of(piece);
    if (targets == 0) {
      ++left_out_.pieces;
      if (piece.length < whole &&
          (!count_targets_ || count_targets_(piece.first + piece.length, offsets[i + 1]) > 0)) {
        ++left_out_.cut;
        left_out_.longest_cut = std::max(left_out_.longest_cut, whole);
      }
      continue;
    }
    targets_ += targets;
    pieces_.push_back(piece);
    row_starts_.push_back(static_cast<std::int64_t>(pieces_.size()));
  }
}

// By row.
std::vector<RowPlan::PlacedPiece> RowPlan::packed(std::span<const std::int64_t> offsets) {
  std::vector<PlacedPiece> placed;
  std::multimap<std::int64_t, std::int64_t> open;  // free tokens -> row; equal keys: oldest first
  std::int64_t rows = 0;
  const auto place = [&](const Piece& piece, std::int64_t targets) {
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
    placed.push_back({piece, row, targets});
    if (free > 0) {
      open.emplace(free, row);
    }
    if (open.size() > kOpenRows) {
      open.erase(open.begin());  // the fullest one is the least likely to be of use
    }
  };
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    for (auto first = offsets[i]; first < offsets[i + 1]; first += row_length_) {
      const Piece piece{first,
                        static_cast<std::int32_t>(std::min(row_length_, offsets[i + 1] - first))};
      const auto targets = targets_of(piece);
      ++left_out_.of;
      if (targets == 0 && piece.length > 1) {
        ++left_out_.pieces;
      } else {
        place(piece, targets);
      }
    }
  }
  std::stable_sort(placed.begin(), placed.end(),
                   [](const PlacedPiece& a, const PlacedPiece& b) { return a.row < b.row; });
  return placed;
}

void RowPlan::keep_rows_with_targets(const std::vector<PlacedPiece>& placed) {
  for (auto begin = placed.begin(); begin != placed.end();) {
    const auto end = std::find_if(
        begin, placed.end(), [&](const PlacedPiece& other) { return other.row != begin->row; });
    const auto targets =
        std::accumulate(begin, end, std::int64_t{0},
                        [](std::int64_t sum, const PlacedPiece& one) { return sum + one.targets; });
    if (targets == 0) {
      left_out_.pieces += end - begin;
    } else {
      targets_ += targets;
      std::transform(begin, end, std::back_inserter(pieces_),
                     [](const PlacedPiece& one) { return one.piece; });
      row_starts_.push_back(static_cast<std::int64_t>(pieces_.size()));
    }
    begin = end;
  }
}

std::span<const Piece> RowPlan::row(std::int64_t index) const {
  LS_ASSERT(index >= 0 && index < rows());
  const auto begin = row_starts_[static_cast<std::size_t>(index)];
  const auto end = row_starts_[static_cast<std::size_t>(index) + 1];
  return {pieces_.data() + begin, static_cast<std::size_t>(end - begin)};
}

double RowPlan::efficiency() const {
  const auto room = static_cast<double>(rows()) * static_cast<double>(row_length_);
  return room > 0 ? static_cast<double>(tokens_) / room : 0;
}

}  // namespace lorascale::data
