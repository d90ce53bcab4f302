// The NCCL calls that lorascale makes, behind a seam: the real ones, or a test's.
#pragma once

#include <nccl.h>

#include <memory>
#include <string>

namespace lorascale::comm {

class NcclApi {
 public:
  virtual ~NcclApi() = default;
  virtual ncclResult_t get_version(int* version) = 0;
  virtual ncclResult_t get_unique_id(ncclUniqueId* id) = 0;
  virtual ncclResult_t init_rank(ncclComm_t* comm, int size, const ncclUniqueId& id, int rank,
                                 ncclConfig_t* config) = 0;
  virtual ncclResult_t async_error(ncclComm_t comm, ncclResult_t* state) = 0;
  virtual ncclResult_t finalize(ncclComm_t comm) = 0;
  virtual ncclResult_t destroy(ncclComm_t comm) = 0;
  virtual ncclResult_t abort(ncclComm_t comm) = 0;
  virtual ncclResult_t all_reduce(void* data, std::size_t count, ncclDataType_t type,
                                  ncclRedOp_t op, ncclComm_t comm, void* stream) = 0;
  virtual ncclResult_t broadcast(void* data, std::size_t count, ncclDataType_t type, int root,
                                 ncclComm_t comm, void* stream) = 0;
  virtual ncclResult_t all_gather(const void* mine, void* all, std::size_t count,
                                  ncclDataType_t type, ncclComm_t comm, void* stream) = 0;
  virtual ncclResult_t group_start() = 0;
  virtual ncclResult_t group_end() = 0;
  virtual std::string describe(ncclResult_t result, ncclComm_t comm) = 0;
};

// The libnccl that libtorch has loaded, or else the one this program was built with; a second copy
// in one process breaks both. Error(kBadConfig) where there is none or it is older than the
// headers.
std::unique_ptr<NcclApi> load_nccl();

}  // namespace lorascale::comm
