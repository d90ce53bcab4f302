// Words that a text encoder's table of embeddings does not have and an adapter adds (textual
// inversion): their ids follow the table's own.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lorascale::nn {

// Of one table; empty until an adapter fills it.
struct NewTokens {
  at::Tensor rows;      // [n, width], what the encoder computes with
  at::Tensor gradient;  // fp32 [n, width]; backward adds to it
};

// A table that takes some, as an adapter sees it.
struct TokenTable {
  std::string name;                       // of the encoder: "text_encoder"
  at::Tensor weight;                      // [vocabulary, width]
  std::vector<std::int64_t> begins_as{};  // ids whose rows the new ones begin with, one for each
  NewTokens* added = nullptr;             // of the encoder, which outlives the adapter
};

}  // namespace lorascale::nn
