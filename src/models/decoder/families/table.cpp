#include <array>

#include "models/decoder/families/families.hpp"

namespace lorascale::models::decoder {

std::span<const Family> decoder_families() {
  static const std::array families = {kLlama, kMistral, kQwen2, kQwen3};
  return families;
}

}  // namespace lorascale::models::decoder
