// A token file in words, and how its documents fill rows of some lengths.
#include <fmt/format.h>

#include <limits>

#include "base/units.hpp"
#include "data/tokens/row_plan.hpp"
#include "data/tokens/token_file.hpp"
#include "workloads/language/language.hpp"

namespace lorascale::workloads::language {

std::string describe_data(const std::filesystem::path& file) {
  const data::TokenFile dataset(file, std::numeric_limits<std::int32_t>::max());
  std::string text =
      fmt::format("token data set: {}, {}, tokenizer {}, loss mask {}\n",
                  counted(dataset.documents(), "document"), counted(dataset.tokens(), "token"),
                  dataset.tokenizer().empty() ? "unknown" : dataset.tokenizer(),
                  dataset.has_loss_mask() ? "yes" : "no");
  for (const std::int64_t length : {256, 512, 1024, 2048, 4096}) {
    const data::RowPlan plan(dataset.offsets(), length, /*packing=*/true);
    text += fmt::format("  rows of {:>4} tokens: {:>8}, filled to {:.1f} %\n", length, plan.rows(),
                        100 * plan.efficiency());
  }
  return text;
}

}  // namespace lorascale::workloads::language
