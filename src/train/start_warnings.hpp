// What a user should know before a run begins although nothing is wrong with it: a model and
// threads that fit the machine badly.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/model.hpp"

namespace lorascale::train {

// One line each.
std::vector<std::string> start_warnings(const models::Model& model);

// A line where threads that wait by spinning would do so on cores that others want: `load` is the
// machine's, of which `cores` are there; `policy_is_set`: OMP_WAIT_POLICY says how to wait.
std::optional<std::string> warning_of_spinning(int threads, double load, int cores,
                                               bool policy_is_set);

}  // namespace lorascale::train
