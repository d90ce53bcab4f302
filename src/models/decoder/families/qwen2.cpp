// Qwen2 and 2.5: biases of q, k and v always.
#include "models/decoder/families/families.hpp"

namespace lorascale::models::decoder {
namespace {

void read_qwen2(const io::JsonObject& /*fields*/, DecoderConfig& config) {
  config.qkv_bias = true;
}

}  // namespace

const Family kQwen2 = {"qwen2", Windows::kWhereAllowed, 0, read_qwen2};

}  // namespace lorascale::models::decoder
