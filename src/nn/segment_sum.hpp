// The gradient of a table of which rows were looked up, some more than once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace lorascale::nn {

// table [rows, width] fp32: row ids[i] += grad[i], for all i; grad: [ids, width] in any type. What
// goes to one row is added up first, in fp32 and in the order of i, and then added to it once: no
// atomics, so the same bits on every call and device of a kind, unlike index_add_ on a GPU. The sum
// of a row depends on its own summands alone, not on what stands between them.
void add_rows(const at::Tensor& table, std::span<const std::int32_t> ids, const at::Tensor& grad);

}  // namespace lorascale::nn
