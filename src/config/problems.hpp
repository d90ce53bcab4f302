// Collects what is wrong and throws once, with a line for each problem in the order of the source:
// one run of the program shows all that is to be mended.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace lorascale::config {

// The order of what no line of the file is to blame for: overrides, contradictions.
constexpr int kAfterTheFile = std::numeric_limits<int>::max();

class Problems {
 public:
  // `order` is the line of the file; problems of one line keep the order they were found in.
  // `key` is the option that it concerns, where the message does not name it.
  void add(int order, std::string message, std::string_view key = {}) {
    found_.push_back({order, std::move(message), std::string(key)});
  }
  [[nodiscard]] std::size_t count() const { return found_.size(); }
  // Whether one of them speaks of this key.
  [[nodiscard]] bool name(std::string_view key) const {
    return std::any_of(found_.begin(), found_.end(), [&](const Problem& problem) {
      return problem.key == key || problem.message.find(key) != std::string::npos;
    });
  }

  // A damaged file may have thousands: the first ones are shown and the others counted.
  static constexpr std::size_t kShown = 20;

  void throw_if_any() const {
    if (found_.empty()) {
      return;
    }
    auto sorted = found_;
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const Problem& a, const Problem& b) { return a.order < b.order; });
    const std::size_t shown = std::min(sorted.size(), kShown);
    std::string lines = sorted.front().message;
    for (std::size_t i = 1; i < shown; ++i) {
      lines += "\n" + sorted[i].message;
    }
    if (const std::size_t others = sorted.size() - shown; others > 0) {
      lines +=
          "\nand " + std::to_string(others) + (others == 1 ? " more problem" : " more problems");
    }
    throw_bad_config(lines);
  }

 private:
  struct Problem {
    int order;
    std::string message;
    std::string key;
  };
  std::vector<Problem> found_;
};

}  // namespace lorascale::config
