// HDF5 files written by h5py, good and bad; many of them in one run of Python.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "support/temp_folder.hpp"

namespace lorascale::data {

class H5pyFiles : public testing::Test {
 protected:
  // `script` defines what the changes call; `begin` is done to each open file `f` before them.
  H5pyFiles(std::string script, std::string begin)
      : script_(std::move(script)), begin_(std::move(begin)) {}

  // A file for each change: statements over an open file `f`; those after "then" see the closed
  // file as `path`.
  std::vector<std::filesystem::path> make(const std::vector<std::string>& changes) {
    const auto script = folder_ / "make.py";
    std::vector<std::filesystem::path> paths;
    {
      std::ofstream out(script);
      out << script_;
      for (const auto& change : changes) {
        paths.push_back(folder_ / ("set" + std::to_string(made_++) + ".h5"));
        const auto then = change.find("then ");
        out << "path = r'" << paths.back().string() << "'\n"
            << "with h5py.File(path, 'w') as f:\n  " << begin_ << "\n  " << change.substr(0, then)
            << "\n"
            << (then == std::string::npos ? "" : change.substr(then + 5)) << "\n";
      }
    }
    const std::string command = std::string(LORASCALE_PYTHON) + " " + script.string();
    EXPECT_EQ(std::system(command.c_str()), 0);
    return paths;
  }
  std::filesystem::path make(const std::string& change) { return make(std::vector{change})[0]; }

  test::TempFolder folder_;

 private:
  std::string script_, begin_;
  int made_ = 0;
};

}  // namespace lorascale::data
