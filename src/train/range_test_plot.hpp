// A range test as a picture: losses over rates on a logarithmic axis, the bracket shaded. SVG, for
// any browser.
#pragma once

#include <string>

#include "train/range_test.hpp"

namespace lorascale::train {

std::string range_test_svg(const RangeTest& test);

}  // namespace lorascale::train
