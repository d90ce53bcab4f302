// Where Python and the scripts are: of a build tree, an installed tree, a bundle.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/child_process.hpp"

namespace lorascale::prepare {

struct PythonSearch {
  std::optional<std::string> setting;  // data.prepare.python
  std::vector<std::string> modules;    // that it must be able to import
  KeepGoing keep_going;
};

// The first that has the modules of: the setting or LORASCALE_PYTHON, which must have them; the
// Python that this program was built with; python3 in the program's folder; python3 and python in
// PATH. Nothing where there is none.
std::optional<std::string> find_python(const PythonSearch& search);
using FindPython = std::function<std::optional<std::string>(const PythonSearch&)>;

// A script of scripts/ beside this program: in the tree it was built in, an installed one or a
// bundle. Error(kBadInput) where it is in none of them.
std::filesystem::path find_script(std::string_view name);

}  // namespace lorascale::prepare
