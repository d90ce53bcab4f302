#include "nn/dtypes.hpp"

#include <algorithm>
#include <array>

#include "base/error.hpp"

namespace lorascale::nn {
namespace {

constexpr std::array kTypes = {
    FloatType{at::kFloat, "fp32", "F32", "float32"},
    FloatType{at::kBFloat16, "bf16", "BF16", "bfloat16"},
    FloatType{at::kHalf, "fp16", "F16", "float16"},
};

template <typename Member, typename Value>
std::optional<at::ScalarType> find(Member member, Value value) {
  const auto* found = std::ranges::find(kTypes, value, member);
  return found != kTypes.end() ? std::optional(found->type) : std::nullopt;
}

}  // namespace

const FloatType& float_type(at::ScalarType type) {
  const auto* found = std::ranges::find(kTypes, type, &FloatType::type);
  LS_ASSERT(found != kTypes.end());
  return *found;
}

std::optional<at::ScalarType> float_type_named(std::string_view name) {
  return find(&FloatType::name, name);
}

std::optional<at::ScalarType> float_type_stored_as(std::string_view safetensors) {
  return find(&FloatType::safetensors, safetensors);
}

}  // namespace lorascale::nn
