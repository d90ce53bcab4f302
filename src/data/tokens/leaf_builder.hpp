// Rows of a data set assembled into a leaf.
#pragma once

#include <cstdint>
#include <span>

#include "data/tokens/row_plan.hpp"
#include "data/tokens/token_file.hpp"
#include "data/tokens/token_leaf.hpp"

namespace lorascale::data {

// A position's label is the next token of the same piece where that token counts as a target
// (loss_mask), else -1; so no label crosses a document, and a piece's last token has none.
// Thread-safe.
TokenLeaf build_leaf(const TokenFile& dataset, const RowPlan& plan, const SampleKey& key,
                     std::span<const std::int64_t> rows);

}  // namespace lorascale::data
