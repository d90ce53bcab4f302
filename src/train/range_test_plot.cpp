#include "train/range_test_plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lorascale::train {
namespace {

// Of the picture and of the area between the axes, in pixels.
constexpr double kWidth = 760, kHeight = 460;
constexpr double kLeft = 70, kRight = 740, kTop = 50, kBottom = 400;

// Where a rate and a loss lie in the picture. The axis of the losses ends a little above where the
// curve starts: what diverges is drawn at the top, and does not flatten the rest.
class Axes {
 public:
  explicit Axes(const RangeTest& test)
      : first_(std::log10(test.settings.from)), last_(std::log10(test.settings.to)) {
    if (test.curve.empty()) {
      return;
    }
    low_ = high_ = test.curve.front().smoothed;
    for (const auto& point : test.curve) {
      low_ = std::min(low_, point.smoothed);
    }
    const double fall = std::max(high_ - low_, 0.02 * std::max(std::abs(high_), 1e-3));
    high_ += 0.5 * fall;
    low_ -= 0.2 * fall;
  }

  [[nodiscard]] double x(double rate) const {
    return kLeft + (std::log10(rate) - first_) / (last_ - first_) * (kRight - kLeft);
  }
  [[nodiscard]] double y(double loss) const {
    const double part = std::clamp((loss - low_) / (high_ - low_), 0.0, 1.0);
    return kBottom - part * (kBottom - kTop);
  }
  [[nodiscard]] double low() const { return low_; }
  [[nodiscard]] double high() const { return high_; }

 private:
  double first_ = 0, last_ = 1;  // decades
  double low_ = 0, high_ = 1;    // losses
};

std::string text(double x, double y, const std::string& anchor, const std::string& words) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     words);
}

std::string line(double x1, double y1, double x2, double y2, const std::string& kind) {
  return fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1, y1, x2,
      y2, kind);
}

std::string ticks(const RangeTest& test, const Axes& axes) {
  std::string svg;
  const int last = static_cast<int>(std::floor(std::log10(test.settings.to) + 1e-9));
  for (int decade = static_cast<int>(std::ceil(std::log10(test.settings.from) - 1e-9));
       decade <= last; ++decade) {
    const double x = axes.x(std::pow(10.0, decade));
    svg += line(x, kTop, x, kBottom, "grid");
    svg += text(x, kBottom + 18, "middle", fmt::format("1e{}", decade));
  }
  constexpr int kLossTicks = 5;
  for (int i = 0; i <= kLossTicks; ++i) {
    const double loss = axes.low() + (axes.high() - axes.low()) * i / kLossTicks;
    svg += line(kLeft, axes.y(loss), kRight, axes.y(loss), "grid");
    svg += text(kLeft - 8, axes.y(loss) + 4, "end", fmt::format("{:.4g}", loss));
  }
  return svg;
}

std::string bracket(const RangeTest& test, const Axes& axes) {
  const auto& range = test.range;
  if (range.verdict == coordinator::LrVerdict::kNoDescent) {
    return "";
  }
  std::string svg = fmt::format(
      "<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" class=\"bracket\"/>\n",
      axes.x(range.low), kTop, axes.x(range.high) - axes.x(range.low), kBottom - kTop);
  svg += line(axes.x(range.suggestion), kTop, axes.x(range.suggestion), kBottom, "suggestion");
  svg += text(axes.x(range.low), kTop - 6, "end", fmt::format("{:.3g}", range.low));
  svg += text(axes.x(range.suggestion), kTop - 20, "middle",
              fmt::format("suggested {:.3g}", range.suggestion));
  svg += text(axes.x(range.high), kTop - 6, "start", fmt::format("{:.3g}", range.high));
  return svg;
}

std::string curves(const RangeTest& test, const Axes& axes) {
  std::string dots, smooth;
  for (const auto& point : test.curve) {
    dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2\"/>\n", axes.x(point.lr),
                        axes.y(point.loss));
    smooth += fmt::format("{:.1f},{:.1f} ", axes.x(point.lr), axes.y(point.smoothed));
  }
  return dots + "<polyline points=\"" + smooth + "\"/>\n";
}

}  // namespace

std::string range_test_svg(const RangeTest& test) {
  const Axes axes(test);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
      "viewBox=\"0 0 {0} {1}\">\n",
      kWidth, kHeight);
  svg +=
      "<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.bracket{fill:#bfe3c0}"
      ".suggestion{stroke:#1a7f37;stroke-width:2}circle{fill:#9bb}"
      "polyline{fill:none;stroke:#0550ae;stroke-width:2}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  svg += bracket(test, axes) + ticks(test, axes) + curves(test, axes);
  svg += text((kLeft + kRight) / 2, kBottom + 42, "middle",
              fmt::format("learning rate, at a batch of {}", test.batch));
  svg += fmt::format(
      "<text transform=\"translate(18 {:.0f}) rotate(-90)\" text-anchor=\"middle\">loss of the "
      "next update</text>\n",
      (kTop + kBottom) / 2);
  return svg + "</svg>\n";
}

}  // namespace lorascale::train
