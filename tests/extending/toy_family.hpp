// The template of "add a model family" (docs/extending.md): a decoder whose config.json has a name
// and quirks of its own.
#pragma once

#include "models/decoder/config.hpp"

namespace lorascale::toys {

inline void read_layers(const io::JsonObject& fields, models::decoder::DecoderConfig& config) {
  if (fields.boolean_or("parallel_blocks", false)) {
    fields.fail("parallel_blocks", "is true, which is not supported");
  }
  config.qkv_bias = fields.boolean_or("bias", true);
}

inline const models::decoder::Family kToy = {"toy", models::decoder::Windows::kNone, 16,
                                             read_layers};

}  // namespace lorascale::toys
