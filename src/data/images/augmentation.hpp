// Random views of a picture: flipped and shifted. Which view a picture gets is a pure function of
// (seed, epoch, sample id).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/sample_key.hpp"
#include "data/images/image_header.hpp"

namespace lorascale::data {

struct Augmentation {
  bool flip = false;       // left to right, every other picture
  std::int64_t shift = 0;  // pixels, up to so many each way: a crop of the picture within a margin
};

struct View {
  bool flipped = false;
  std::int64_t down = 0, right = 0;  // where its upper left corner lies in the (flipped) picture
  friend bool operator==(const View&, const View&) = default;
};

View draw_view(const Augmentation& augmentation, const SampleKey& key, std::int64_t sample);

// What each value of a pixel becomes, [channels][256].
using PixelTable = std::span<const std::array<float, 256>>;

// Writes the view of `pixels` [channels, height, width] to `destination`, of the same shape,
// through the table. What lies beyond the picture is left as it is.
void render_view(std::span<const std::uint8_t> pixels, const ImageShape& shape, const View& view,
                 PixelTable table, std::span<float> destination);

}  // namespace lorascale::data
