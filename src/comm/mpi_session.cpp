#include "comm/mpi_session.hpp"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/heartbeat.hpp"
#include "comm/launcher.hpp"

namespace lorascale::comm {

namespace {

// What makes Open MPI look for the other tasks of a step of srun.
void forget_the_step() {
  std::vector<std::string> names = {"SLURM_STEP_ID"};
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (text.starts_with("PMIX_")) {
      names.emplace_back(text.substr(0, text.find('=')));
    }
  }
  for (const auto& name : names) {
    unsetenv(name.c_str());
  }
  setenv("OMPI_MCA_ess_singleton_isolated", "1", /*overwrite=*/0);  // it needs no daemon
}

}  // namespace

MpiSession::MpiSession() {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised == 0) {
    const auto launcher = read_launcher(std::getenv);
    require_wire_up(launcher, std::getenv);
    if (is_only_task(launcher)) {
      forget_the_step();
    }
    int provided = 0;
    beat("MPI_Init");
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
      throw Error(ExitCode::kInternal, "MPI_Init_thread failed");
    }
    owns_ = true;
  }
}

MpiSession::~MpiSession() {
  int finalised = 0;
  MPI_Finalized(&finalised);
  // MPI_Finalize waits for all ranks; one that fails must not wait for those that may wait for it.
  // mpirun ends the others when this process leaves with its exit code.
  if (owns_ && finalised == 0 && std::uncaught_exceptions() == 0) {
    MPI_Finalize();
  }
}

std::string host_name() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

int world_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

NodePlace node_place() {
  MPI_Comm node = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  NodePlace place;
  MPI_Comm_rank(node, &place.local_rank);
  MPI_Comm_size(node, &place.local_size);
  place.first = world_rank();
  MPI_Bcast(&place.first, 1, MPI_INT, 0, node);
  MPI_Comm_free(&node);
  place.host = host_name();
  return place;
}

}  // namespace lorascale::comm
