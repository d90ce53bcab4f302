// The life of MPI in this process, and this rank's place on its node.
#pragma once

#include <string>

namespace lorascale::comm {

// MPI_Init_thread and MPI_Finalize. Owned by main; does nothing where MPI is already initialised by
// somebody else.
class MpiSession {
 public:
  MpiSession();
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

 private:
  bool owns_ = false;
};

// This rank's place among those on the same node.
struct NodePlace {
  int local_rank = 0;
  int local_size = 1;
  int first = 0;  // rank of the job that is the first of this node
  std::string host;
};
NodePlace node_place();

std::string host_name();
int world_rank();
int world_size();

}  // namespace lorascale::comm
