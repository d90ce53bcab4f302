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

// Whether srun started this process as the only one of its step: alone, or in the shell of
// `srun --pty bash`, where MPI must not look for the other tasks of the step: it finds no service
// for that, or one that takes each task once only.
bool is_only_task(const LauncherFacts& facts);

// Error(kBadConfig) where srun started several tasks without a way to find each other: MPI_Init
// would end in words about Open MPI's build.
void require_wire_up(const LauncherFacts& facts, const Environment& environment);

}  // namespace lorascale::comm
