// What the advisor has to say: a symptom with the numbers behind it and the change to make. Every
// finding has a name of its own, under which it is said once in a run.
#pragma once

#include <string>
#include <vector>

#include "coordinator/record/json_number.hpp"

namespace lorascale::coordinator {

struct Finding {
  std::string name;              // "loss_rises"
  std::string text;              // one line: numbers; change
  Json inputs = Json::object();  // the numbers again
};
using Findings = std::vector<Finding>;

}  // namespace lorascale::coordinator
