// The element types of weights and computation, by all the names they go under: one table.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>
#include <string_view>

namespace lorascale::nn {

struct FloatType {
  at::ScalarType type;
  std::string_view name;          // "bf16", in configurations and messages
  std::string_view safetensors;   // "BF16"
  std::string_view hugging_face;  // "bfloat16", in config.json
};

// Error: a bug of ours where `type` is none of the table's.
const FloatType& float_type(at::ScalarType type);

// Nothing for any other text; "auto" is none.
std::optional<at::ScalarType> float_type_named(std::string_view name);
std::optional<at::ScalarType> float_type_stored_as(std::string_view safetensors);

}  // namespace lorascale::nn
