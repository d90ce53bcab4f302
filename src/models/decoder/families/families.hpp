// The families of decoders (config.hpp), one file each.
#pragma once

#include "models/decoder/config.hpp"

namespace lorascale::models::decoder {

extern const Family kLlama, kMistral, kQwen2, kQwen3;

}  // namespace lorascale::models::decoder
