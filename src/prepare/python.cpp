#include "prepare/python.hpp"

#include <array>
#include <cstdlib>
#include <system_error>

#include "base/error.hpp"

namespace lorascale::prepare {
namespace {

namespace fs = std::filesystem;

fs::path program_folder() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path();
}

std::string list_of(const std::vector<std::string>& names) {
  std::string list;
  for (const auto& name : names) {
    list += (list.empty() ? "" : ", ") + name;
  }
  return list;
}

// What keeps this Python from importing the modules; empty: nothing does.
std::string fault_of(const std::string& python, const PythonSearch& search) {
  std::string last;
  try {
    const auto outcome = run_child(
        {{python, "-c", "import " + list_of(search.modules)}, {}},
        [&](ChildStream, std::string_view line) { last = line; }, search.keep_going);
    if (outcome.stopped) {
      throw Error(ExitCode::kStopped, "stopped on request before anything was done; run it again");
    }
    if (outcome.exit_code == 0 && outcome.signal == 0) {
      return {};
    }
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) {
      throw;
    }
    return error.what();
  }
  return python + " cannot import " + list_of(search.modules) + " (" +
         (last.empty() ? "it says nothing" : last) + ")";
}

}  // namespace

std::optional<std::string> find_python(const PythonSearch& search) {
  const char* variable = std::getenv("LORASCALE_PYTHON");
  const bool chosen = search.setting || (variable != nullptr && *variable != '\0');
  if (chosen) {
    const std::string python = search.setting ? *search.setting : variable;
    if (const auto fault = fault_of(python, search); !fault.empty()) {
      throw_bad_input((search.setting ? "data.prepare.python: " : "LORASCALE_PYTHON: ") + fault +
                      "; install requirements.txt there, or name another Python");
    }
    return python;
  }
  std::error_code ignored;
  for (const fs::path& python : {fs::path(LORASCALE_PYTHON), program_folder() / "python3"}) {
    if (!python.empty() && fs::exists(python, ignored) && fault_of(python, search).empty()) {
      return python.string();
    }
  }
  for (const char* python : {"python3", "python"}) {
    if (fault_of(python, search).empty()) {
      return python;
    }
  }
  return std::nullopt;
}

fs::path find_script(std::string_view name) {
  const auto here = program_folder();
  const std::array folders = {here / "../share/lorascale/scripts", here / "../scripts",
                              here / "../../scripts", fs::path(LORASCALE_SCRIPTS)};
  for (const auto& folder : folders) {
    std::error_code ignored;
    if (fs::is_regular_file(folder / name, ignored)) {
      return (folder / name).lexically_normal();
    }
  }
  throw_bad_input("scripts/" + std::string(name) + " is not beside " + here.string() +
                  "; install lorascale with its scripts, or make the token file where they are");
}

}  // namespace lorascale::prepare
