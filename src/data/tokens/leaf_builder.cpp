#include "data/tokens/leaf_builder.hpp"

#include <numeric>

namespace lorascale::data {
namespace {

void append_piece(const TokenFile& dataset, const Piece& piece, TokenLeaf& leaf) {
  const auto begin = leaf.tokens.size();
  const auto length = static_cast<std::size_t>(piece.length);
  leaf.tokens.resize(begin + length);
  const std::span tokens(leaf.tokens.data() + begin, length);
  dataset.read_tokens(piece.first, tokens);
  std::vector<std::uint8_t> mask;
  if (dataset.has_loss_mask()) {
    mask.resize(length);
    dataset.read_mask(piece.first, mask);
  }
  for (std::size_t i = 0; i < length; ++i) {
    const bool target = i + 1 < length && (mask.empty() || mask[i + 1] == 1);
    leaf.labels.push_back(target ? tokens[i + 1] : -1);
    leaf.targets += target ? 1 : 0;
  }
  leaf.positions.resize(begin + length);
  std::iota(leaf.positions.begin() + static_cast<std::ptrdiff_t>(begin), leaf.positions.end(), 0);
  leaf.segments.push_back(
      {static_cast<std::int32_t>(begin), static_cast<std::int32_t>(begin + length)});
}

}  // namespace

TokenLeaf build_leaf(const TokenFile& dataset, const RowPlan& plan, const SampleKey& key,
                     std::span<const std::int64_t> rows) {
  TokenLeaf leaf;
  leaf.key = key;
  leaf.row_offsets.push_back(0);
  for (const auto row : rows) {
    for (const auto& piece : plan.row(row)) {
      append_piece(dataset, piece, leaf);
    }
    leaf.sample_ids.push_back(row);
    leaf.row_offsets.push_back(static_cast<std::int32_t>(leaf.tokens.size()));
  }
  leaf.units = static_cast<std::int64_t>(leaf.tokens.size());
  return leaf;
}

}  // namespace lorascale::data
