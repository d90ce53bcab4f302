// Qwen3: norms over each head of q and k; heads of 128 where nothing is said.
#include "models/decoder/families/families.hpp"

namespace lorascale::models::decoder {
namespace {

void read_qwen3(const io::JsonObject& fields, DecoderConfig& config) {
  config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);
  config.qk_norm = true;
}

}  // namespace

const Family kQwen3 = {"qwen3", Windows::kWhereAllowed, 128, read_qwen3};

}  // namespace lorascale::models::decoder
