#include "data/tokens/prompt_table.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "data/byte_table.hpp"

namespace lorascale::data {

PromptTable PromptTable::read(const io::Hdf5File& file, std::int64_t vocabulary) {
  PromptTable table;
  if (!file.has("/prompts")) {
    return table;
  }
  const std::string where = file.path().string() + ": /prompts";
  const auto texts = ByteTable::read(file, "/prompts/texts");
  const auto ids = read_small<std::uint32_t>(file, "/prompts/ids", io::Hdf5Type::kUint32);
  const auto offsets = read_table_offsets(file, "/prompts", "ids", ids.size());
  if (static_cast<std::int64_t>(offsets.size()) != texts.size() + 1) {
    throw_bad_input(where + " has " + std::to_string(texts.size()) + " texts for " +
                    std::to_string(offsets.size() - 1) + " lists of ids; make the file again");
  }
  if (std::adjacent_find(offsets.begin(), offsets.end()) != offsets.end()) {
    throw_bad_input(where + " has a prompt without ids; make the file again");
  }
  const auto largest = std::max_element(ids.begin(), ids.end());
  if (largest != ids.end() && *largest >= vocabulary) {
    throw_bad_input(where + " holds id " + std::to_string(*largest) +
                    ", but the model's vocabulary ends at " + std::to_string(vocabulary - 1) +
                    "; prepare it with this model's tokenizer");
  }
  for (std::int64_t i = 0; i < texts.size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    table.ids_.emplace(texts[i], std::vector<std::int32_t>(ids.begin() + offsets[at],
                                                           ids.begin() + offsets[at + 1]));
  }
  return table;
}

std::optional<std::vector<std::int32_t>> PromptTable::find(const std::string& text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace lorascale::data
