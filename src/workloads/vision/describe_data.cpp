// An image file in words, with how many pictures each class has.
#include <fmt/format.h>

#include <algorithm>

#include "base/units.hpp"
#include "data/images/image_file.hpp"
#include "io/untrusted_text.hpp"
#include "workloads/vision/vision.hpp"

namespace lorascale::workloads::vision {

namespace {

// Names of folders may hold anything; what would break the line or speak to the terminal is quoted.
std::string shown(const std::string& name) {
  const bool speaks =
      std::ranges::any_of(name, [](unsigned char c) { return c < 0x20 || c == 0x7F; });
  return speaks ? io::in_quotes(name) : name;
}

}  // namespace

std::string describe_data(const std::filesystem::path& file) {
  const data::ImageFile images(file);
  const auto& classes = images.classes();
  std::vector<std::int64_t> counts(classes.size(), 0);
  for (const auto label : images.labels()) {
    ++counts[label];
  }
  auto text = fmt::format("image data set: {} of {}, {} classes\n",
                          counted(images.images(), "image"), images.shape().text(), classes.size());
  for (std::size_t i = 0; i < classes.size(); ++i) {
    text += fmt::format("  {:<32} {:>8}\n", shown(classes[i]), counts[i]);
  }
  return text;
}

}  // namespace lorascale::workloads::vision
