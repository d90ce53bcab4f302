// Helpers of the configuration tests: read a text, and say what an error says.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "config/reader.hpp"

namespace lorascale::config {

inline RunConfig read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_config_text(text, "test.yaml", {.overrides = overrides, .world_size = 1}).config;
}

// What `action` throws: its exit code and message, a line for each of `problems`.
struct Thrown {
  int code = 0;
  std::string message;
};
inline Thrown thrown_by(const std::function<void()>& action, int problems = 1) {
  try {
    action();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(std::count(message.begin(), message.end(), '\n') + 1, problems) << message;
    return {static_cast<int>(error.code()), message};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

inline Thrown refusal(const std::string& text, const std::vector<std::string>& overrides = {},
                      int problems = 1) {
  return thrown_by([&] { read(text, overrides); }, problems);
}

// The message holds every one of `parts`.
inline void expect_parts(const std::string& message, const std::vector<std::string>& parts) {
  for (const auto& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in: " << message;
  }
}

}  // namespace lorascale::config
