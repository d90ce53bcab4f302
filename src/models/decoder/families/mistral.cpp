// Mistral: no biases; a window where config.json gives one.
#include "models/decoder/families/families.hpp"

namespace lorascale::models::decoder {

const Family kMistral = {"mistral", Windows::kWhereGiven};

}  // namespace lorascale::models::decoder
