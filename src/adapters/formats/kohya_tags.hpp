// The tags that a LoRA learnt from, as sd-scripts counts them in ss_tag_frequency of a file's
// metadata: JSON {"data set": {"tag": times}}. Of unknown origin.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorascale::adapters {

// The most used ones of all data sets together, first the one of most, at most `count`. What is no
// such JSON, or larger than any real one, has none; what is wrong in it is passed over.
std::vector<std::pair<std::string, std::int64_t>> most_used_tags(std::string_view frequency,
                                                                 std::size_t count);

}  // namespace lorascale::adapters
