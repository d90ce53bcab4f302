// The verbs of the command line, one file each. Each returns its exit code or throws Error.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "train/world.hpp"

namespace lorascale::cli {

// What follows the verb on the command line.
using Arguments = std::vector<std::string>;

struct Verb {
  const char* name;
  const char* synopsis;  // of its arguments
  const char* help;
  ExitCode (*run)(const Arguments&);
};

// In the order of --help.
const std::vector<Verb>& verbs();

ExitCode run_train(const Arguments& arguments);
ExitCode run_plan(const Arguments& arguments);
ExitCode run_cache(const Arguments& arguments);
ExitCode run_find_batch(const Arguments& arguments);
ExitCode run_find_lr(const Arguments& arguments);
ExitCode run_generate(const Arguments& arguments);
ExitCode run_inspect(const Arguments& arguments);
ExitCode run_merge(const Arguments& arguments);
ExitCode run_resize(const Arguments& arguments);
ExitCode run_export(const Arguments& arguments);

}  // namespace lorascale::cli
