// Changes of a picture's colours in training: brightness, contrast and saturation, in this order,
// as torchvision.transforms.ColorJitter defines these three (by its `functional`, on floats).
#pragma once

#include <span>

#include "base/sample_key.hpp"

namespace lorascale::data {

// What each is multiplied by; 1 changes nothing.
struct ColorFactors {
  double brightness = 1, contrast = 1, saturation = 1;
};

// Each uniform in [1 - most, 1 + most), from one block of random bits.
ColorFactors draw_color_factors(const PhiloxBlock& bits, double most);

// `picture`: [3, pixels] of red, green and blue in [-1, 1], in place.
void change_colors(std::span<float> picture, const ColorFactors& factors);

}  // namespace lorascale::data
