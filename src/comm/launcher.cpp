#include "comm/launcher.hpp"

#include <charconv>
#include <string_view>

#include "base/error.hpp"

namespace lorascale::comm {
namespace {

std::optional<int> number(const Environment& environment, const char* name) {
  const char* text = environment(name);
  if (text == nullptr) {
    return std::nullopt;
  }
  const std::string_view view(text);
  int value = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc() || end != view.data() + view.size() || value < 0) {
    return std::nullopt;
  }
  return value;
}

}  // namespace

LauncherFacts read_launcher(const Environment& environment) {
  const auto read = [&](const char* launcher, const char* rank, const char* size,
                        const char* local_rank) -> LauncherFacts {
    return {launcher, number(environment, rank), number(environment, size),
            number(environment, local_rank)};
  };
  auto facts =
      read("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK");
  if (facts.rank && facts.size) {
    return facts;
  }
  // srun alone sets the variables of a step; those of the job are there in a batch script too.
  facts = read("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID");
  if (facts.rank && facts.size) {
    return facts;
  }
  return {};
}

void check_launcher(const LauncherFacts& facts, int mpi_rank, int mpi_size) {
  if (!facts.size || (*facts.size == mpi_size && *facts.rank == mpi_rank)) {
    return;
  }
  const std::string remedy =
      facts.name == "srun"
          ? "start it with srun --mpi=pmix (srun --mpi=list shows what this SLURM offers)"
          : "use the mpirun of the OpenMPI that lorascale was built with (mpirun --version)";
  throw_bad_config(facts.name + " started this process as rank " + std::to_string(*facts.rank) +
                   " of " + std::to_string(*facts.size) + ", but MPI sees rank " +
                   std::to_string(mpi_rank) + " of " + std::to_string(mpi_size) + "; " + remedy);
}

bool is_only_task(const LauncherFacts& facts) {
  return facts.name == "srun" && facts.size == 1;
}

void require_wire_up(const LauncherFacts& facts, const Environment& environment) {
  if (facts.name == "srun" && facts.size.value_or(1) > 1 && environment("PMIX_RANK") == nullptr &&
      environment("PMI_RANK") == nullptr) {
    throw_bad_config("srun started " + std::to_string(*facts.size) +
                     " tasks that cannot find each other; start them with srun --mpi=pmix (srun "
                     "--mpi=list shows what this SLURM offers)");
  }
}

}  // namespace lorascale::comm
