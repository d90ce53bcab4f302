// Which document pieces make up each row of at most T tokens. What has no target teaches nothing
// and is in no row.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace lorascale::data {

struct Piece {
  std::int64_t first = 0;  // token index in the data set
  std::int32_t length = 0;
};

// How many of the tokens [begin, end) of the data set count as targets. Asked in file order.
using CountTargets = std::function<std::int64_t(std::int64_t begin, std::int64_t end)>;

// What is in no row, for none of its tokens counts as a target.
struct LeftOut {
  std::int64_t pieces = 0;
  std::int64_t of = 0;  // pieces that there were; without packing one for each document
  // Documents among them whose targets all lie beyond the row that cuts them, and the tokens of the
  // longest. With packing nothing is cut off.
  std::int64_t cut = 0;
  std::int64_t longest_cut = 0;
};

// data.packing auto: whether documents stay apart, a row each, because their packing would leave an
// epoch fewer than kFewestPackedUpdates updates of `batch` rows. Not where that would cut one off.
inline constexpr std::int64_t kFewestPackedUpdates = 20;
bool better_apart(std::span<const std::int64_t> offsets, std::int64_t row_length,
                  std::int64_t packed_rows, std::int64_t batch);

class RowPlan {
 public:
  // `offsets`: [documents + 1] of the data set. Without packing each document is one row, cut to
  // `row_length`. With packing, documents longer than a row are cut into pieces of it, and each
  // piece goes to the open row that it fills best (online best fit over a bounded number of open
  // rows); documents stay in file order as far as that allows, and rows stand in the order of their
  // first piece.
  //
  // A piece's first token is no target, whatever `count_targets` says, for nothing comes before it;
  // without the function all others are. Pieces without a target are left out before rows are made,
  // but for single tokens, which fill what is left of rows that others make.
  RowPlan(std::span<const std::int64_t> offsets, std::int64_t row_length, bool packing,
          CountTargets count_targets = {});

  [[nodiscard]] std::int64_t rows() const {
    return static_cast<std::int64_t>(row_starts_.size()) - 1;
  }
  [[nodiscard]] std::span<const Piece> row(std::int64_t index) const;
  [[nodiscard]] std::int64_t tokens() const { return tokens_; }
  [[nodiscard]] std::int64_t targets() const { return targets_; }
  [[nodiscard]] const LeftOut& left_out() const { return left_out_; }
  // Tokens over rows * row_length; 0 where there is no row.
  [[nodiscard]] double efficiency() const;

 private:
  struct PlacedPiece {
    Piece piece;
    std::int64_t row = 0;
    std::int64_t targets = 0;
  };
  [[nodiscard]] std::int64_t targets_of(const Piece& piece) const;
  void one_for_each(std::span<const std::int64_t> offsets);
  [[nodiscard]] std::vector<PlacedPiece> packed(std::span<const std::int64_t> offsets);
  void keep_rows_with_targets(const std::vector<PlacedPiece>& placed);

  std::int64_t row_length_;
  CountTargets count_targets_;
  std::int64_t tokens_ = 0;
  std::int64_t targets_ = 0;
  LeftOut left_out_;
  std::vector<Piece> pieces_;             // by row
  std::vector<std::int64_t> row_starts_;  // [rows + 1] into pieces_
};

}  // namespace lorascale::data
