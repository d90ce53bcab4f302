#include "data/images/augmentation.hpp"

#include <algorithm>
#include <cstddef>

namespace lorascale::data {
namespace {

// A draw is one use of randomness; what is added here later changes none of these.
constexpr std::uint32_t kFlipDraw = kFirstDataDraw;
constexpr std::uint32_t kShiftDraw = kFirstDataDraw + 1;

// Uniform over [-limit, limit], as near as 32 bits come.
std::int64_t offset(std::uint32_t bits, std::int64_t limit) {
  const auto choices = static_cast<std::uint64_t>(2 * limit + 1);
  return static_cast<std::int64_t>((bits * choices) >> 32) - limit;
}

}  // namespace

View draw_view(const Augmentation& augmentation, const SampleKey& key, std::int64_t sample) {
  View view;
  if (augmentation.flip) {
    view.flipped = key.stream(sample, kFlipDraw).block(0)[0] >> 31 != 0;
  }
  if (augmentation.shift > 0) {
    const auto bits = key.stream(sample, kShiftDraw).block(0);
    view.down = offset(bits[0], augmentation.shift);
    view.right = offset(bits[1], augmentation.shift);
  }
  return view;
}

void render_view(std::span<const std::uint8_t> pixels, const ImageShape& shape, const View& view,
                 PixelTable table, std::span<float> destination) {
  const auto width = shape.width;
  // Of the view: what the picture covers.
  const auto top = std::max<std::int64_t>(0, -view.down);
  const auto bottom = std::min(shape.height, shape.height - view.down);
  const auto left = std::max<std::int64_t>(0, -view.right);
  const auto right = std::min(width, width - view.right);
  for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
    const auto& values = table[static_cast<std::size_t>(channel)];
    for (auto y = top; y < bottom; ++y) {
      const auto row = (channel * shape.height + y) * width;
      const auto* source = pixels.data() + row + view.down * width;
      float* target = destination.data() + row;
      if (view.flipped) {
        for (auto x = left; x < right; ++x) {
          target[x] = values[source[width - 1 - (x + view.right)]];
        }
      } else {
        for (auto x = left; x < right; ++x) {
          target[x] = values[source[x + view.right]];
        }
      }
    }
  }
}

}  // namespace lorascale::data
