// A file of captioned pictures in words, with its buckets and first captions.
#include <fmt/format.h>

#include <algorithm>

#include "base/units.hpp"
#include "data/pictures/captioned_file.hpp"
#include "io/untrusted_text.hpp"
#include "workloads/diffusion/diffusion.hpp"

namespace lorascale::workloads::diffusion {

std::string describe_data(const std::filesystem::path& file) {
  constexpr std::int64_t kShown = 5;
  const data::CaptionedFile pictures(file);
  std::vector<std::int64_t> counts(pictures.buckets().size(), 0);
  std::int64_t samples = 0, regularisation = 0;
  for (std::int64_t i = 0; i < pictures.images(); ++i) {
    ++counts[static_cast<std::size_t>(pictures.bucket(i))];
    samples += pictures.repeats(i);
    regularisation += pictures.regularisation(i) ? 1 : 0;
  }
  auto text = fmt::format("captioned pictures: {}, {} an epoch, {} of them for regularisation\n",
                          counted(pictures.images(), "picture"), counted(samples, "sample"),
                          regularisation);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto& bucket = pictures.buckets()[i];
    text += fmt::format("  {:>5} x {:<5} (height x width) {:>8}\n", bucket.height, bucket.width,
                        counts[i]);
  }
  for (std::int64_t i = 0; i < std::min(kShown, pictures.images()); ++i) {
    text += "  " + io::in_quotes(std::string(pictures.caption(i))) + "\n";
  }
  return text;
}

}  // namespace lorascale::workloads::diffusion
