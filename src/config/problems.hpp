// Collects what is wrong and throws once, with the first problem in the order of the source and the
// number of the others: one line that can be acted on, and no surprise about what comes after it.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "base/error.hpp"

namespace lorascale::config {

class Problems {
 public:
  // `order` is the line of a file, or counts up.
  void add(int order, std::string message) {
    if (count_++ == 0 || order < first_order_) {
      first_order_ = order;
      first_ = std::move(message);
    }
  }
  [[nodiscard]] std::size_t count() const { return count_; }

  void throw_if_any() const {
    if (count_ == 0) {
      return;
    }
    std::string message = first_;
    if (count_ > 1) {
      const std::size_t others = count_ - 1;
      message +=
          " (and " + std::to_string(others) + (others == 1 ? " more problem)" : " more problems)");
    }
    throw_bad_config(message);
  }

 private:
  std::size_t count_ = 0;
  int first_order_ = 0;
  std::string first_;
};

}  // namespace lorascale::config
