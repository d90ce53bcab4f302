#include "train/start_warnings.hpp"

#include <gtest/gtest.h>

namespace lorascale::train {
namespace {

TEST(StartWarnings, ThreadsThatSpinOnCoresOfOthers) {
  const auto warns = [](int threads, double load, int cores, bool set) {
    return warning_of_spinning(threads, load, cores, set).has_value();
  };
  EXPECT_FALSE(warns(2, 0.4, 2, false));  // what a machine does by itself
  EXPECT_TRUE(warns(2, 0.6, 2, false));
  EXPECT_FALSE(warns(2, 6, 8, false));
  EXPECT_TRUE(warns(4, 6, 8, false));
  EXPECT_FALSE(warns(1, 9, 2, false));  // nobody to wait for
  EXPECT_FALSE(warns(2, 9, 2, true));
  EXPECT_NE(warning_of_spinning(2, 1.5, 2, false)->find("OMP_WAIT_POLICY=passive"),
            std::string::npos);
}

}  // namespace
}  // namespace lorascale::train
