// Which document pieces make up each row of at most T tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lorascale::data {

struct Piece {
  std::int64_t first = 0;  // token index in the data set
  std::int32_t length = 0;
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
  RowPlan(std::span<const std::int64_t> offsets, std::int64_t row_length, bool packing);

  [[nodiscard]] std::int64_t rows() const {
    return static_cast<std::int64_t>(row_starts_.size()) - 1;
  }
  [[nodiscard]] std::span<const Piece> row(std::int64_t index) const;
  [[nodiscard]] std::int64_t tokens() const { return tokens_; }
  // Tokens over rows * row_length.
  [[nodiscard]] double efficiency() const;

 private:
  void pack(std::span<const std::int64_t> offsets);

  std::int64_t row_length_;
  std::int64_t tokens_ = 0;
  std::vector<Piece> pieces_;             // by row
  std::vector<std::int64_t> row_starts_;  // [rows + 1] into pieces_
};

}  // namespace lorascale::data
