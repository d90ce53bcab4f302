// What the program that started this process says about its place, read from the environment, and
// whether MPI agrees. Needs no MPI itself.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace lorascale::comm {

struct LauncherFacts {
  std::string name = "none";  // mpirun | srun | none
  std::optional<int> rank, size, local_rank;
};

// Returns a variable's value or nullptr, as std::getenv does.
using Environment = std::function<const char*(const char*)>;

// mpirun (OpenMPI) before srun: inside a batch job both kinds of variables are there.
LauncherFacts read_launcher(const Environment& environment);

// Error(kBadConfig) where the launcher started several ranks and MPI sees another number of them:
// the ranks would train separately and overwrite each other's run folder.
void check_launcher(const LauncherFacts& facts, int mpi_rank, int mpi_size);

}  // namespace lorascale::comm
