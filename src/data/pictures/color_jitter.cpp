#include "data/pictures/color_jitter.hpp"

#include <algorithm>
#include <cstddef>

namespace lorascale::data {
namespace {

// Of one pixel in [0, 1], by the weights of ITU-R 601-2 as torchvision rounds them.
double grey_of(double red, double green, double blue) {
  return 0.2989 * red + 0.587 * green + 0.114 * blue;
}

double between_0_and_1(double value) {
  return std::clamp(value, 0.0, 1.0);
}

}  // namespace

ColorFactors draw_color_factors(const PhiloxBlock& bits, double most) {
  const auto factor = [&](std::uint32_t word) {
    return 1 - most + 2 * most * (static_cast<double>(word) * 0x1p-32);
  };
  return {factor(bits[0]), factor(bits[1]), factor(bits[2])};
}

void change_colors(std::span<float> picture, const ColorFactors& factors) {
  const auto pixels = picture.size() / 3;
  float* red = picture.data();
  float* green = red + pixels;
  float* blue = green + pixels;
  double sum = 0;  // in one order, so that every rank's is the same
  for (std::size_t i = 0; i < pixels; ++i) {
    for (float* channel : {red, green, blue}) {
      channel[i] = static_cast<float>(between_0_and_1((channel[i] + 1.0) / 2 * factors.brightness));
    }
    sum += grey_of(red[i], green[i], blue[i]);
  }
  const double mean = sum / static_cast<double>(pixels);
  for (std::size_t i = 0; i < pixels; ++i) {
    const auto with_contrast = [&](float value) {
      return between_0_and_1(factors.contrast * value + (1 - factors.contrast) * mean);
    };
    const double r = with_contrast(red[i]), g = with_contrast(green[i]), b = with_contrast(blue[i]);
    const double grey = grey_of(r, g, b);
    const auto with_saturation = [&](double value) {
      const double now =
          between_0_and_1(factors.saturation * value + (1 - factors.saturation) * grey);
      return static_cast<float>(2 * now - 1);
    };
    red[i] = with_saturation(r);
    green[i] = with_saturation(g);
    blue[i] = with_saturation(b);
  }
}

}  // namespace lorascale::data
