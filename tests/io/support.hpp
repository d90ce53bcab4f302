// Shared by the tests of io/: whole files as strings, expected errors, and
// the project's Python as an independent reader and writer.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "support/temp_folder.hpp"

namespace lorascale::io {

using lorascale::test::TempFolder;

inline std::string get_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void put_file(const std::filesystem::path& path, std::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  ASSERT_TRUE(file.flush()) << path;
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// `action` must throw Error with this code, on one line, with all these words in its message.
template <class Action>
void expect_error(ExitCode code, std::initializer_list<std::string_view> words, Action&& action) {
  try {
    action();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), code) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    for (const std::string_view word : words) {
      EXPECT_THAT(message, testing::HasSubstr(std::string(word)));
    }
  }
}

inline bool has_python() {
#ifdef LORASCALE_PYTHON
  return std::string_view(LORASCALE_PYTHON).size() > 0;
#else
  return false;
#endif
}

#ifdef LORASCALE_PYTHON
// Runs tests/io/SCRIPT with arguments that need no quoting, and returns its standard output.
inline std::string run_python(const std::string& script, const std::string& arguments) {
  const std::string command =
      std::string("'" LORASCALE_PYTHON "' '" LORASCALE_SOURCE_DIR "/tests/io/") + script + "' " +
      arguments;
  FILE* pipe = ::popen(command.c_str(), "r");
  std::string output;
  char buffer[4096];
  for (std::size_t count = 0; (count = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
    output.append(buffer, count);
  }
  EXPECT_EQ(::pclose(pipe), 0) << command << "\n" << output;
  return output;
}
#endif

}  // namespace lorascale::io
