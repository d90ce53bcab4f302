#include "base/error.hpp"

#include <cstdio>
#include <cstdlib>

namespace lorascale {

void throw_bad_input(const std::string& message) {
  throw Error(ExitCode::kBadInput, message);
}

void throw_bad_config(const std::string& message) {
  throw Error(ExitCode::kBadConfig, message);
}

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "lorascale: internal error: %s does not hold (%s:%d)\n", condition, file,
               line);
  std::abort();
}

}  // namespace lorascale
