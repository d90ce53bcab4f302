// A number that a workload found of what its model makes, for the advisor, which knows the names
// (advice/preview_findings.hpp).
#pragma once

#include <string>

namespace lorascale::coordinator {

struct Measure {
  std::string name;
  double value = 0;
  std::string of{};  // what it was measured on, for people
};

}  // namespace lorascale::coordinator
