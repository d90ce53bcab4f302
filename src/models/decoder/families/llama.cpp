// Llama 2 and 3, SmolLM2, and whatever calls itself one: biases where config.json asks for them.
#include "models/decoder/families/families.hpp"

namespace lorascale::models::decoder {
namespace {

void read_llama(const io::JsonObject& fields, DecoderConfig& config) {
  config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);
  config.mlp_bias = fields.boolean_or("mlp_bias", false);
}

}  // namespace

const Family kLlama = {"llama", Windows::kNone, 0, read_llama};

}  // namespace lorascale::models::decoder
