// The real NCCL, taken at run time so that a machine without GPUs never loads it.
#include <dlfcn.h>

#include "base/error.hpp"
#include "comm/nccl_api.hpp"

namespace lorascale::comm {
namespace {

class NcclLibrary : public NcclApi {
 public:
  NcclLibrary() {
    handle_ = dlopen("libnccl.so.2", RTLD_NOW | RTLD_NOLOAD);
    if (handle_ == nullptr) {
      handle_ = dlopen(LORASCALE_NCCL_LIBRARY, RTLD_NOW);
    }
    if (handle_ == nullptr) {
      handle_ = dlopen("libnccl.so.2", RTLD_NOW);
    }
    if (handle_ == nullptr) {
      throw_bad_config(std::string("NCCL cannot be loaded: ") + dlerror() +
                       "; install torch's nvidia-nccl package, or set run.device: cpu");
    }
    load(get_version_, "ncclGetVersion");
    load(get_unique_id_, "ncclGetUniqueId");
    load(init_rank_, "ncclCommInitRankConfig");
    load(async_error_, "ncclCommGetAsyncError");
    load(finalize_, "ncclCommFinalize");
    load(destroy_, "ncclCommDestroy");
    load(abort_, "ncclCommAbort");
    load(all_reduce_, "ncclAllReduce");
    load(broadcast_, "ncclBroadcast");
    load(all_gather_, "ncclAllGather");
    load(group_start_, "ncclGroupStart");
    load(group_end_, "ncclGroupEnd");
    load(error_string_, "ncclGetErrorString");
    load(last_error_, "ncclGetLastError");
  }

  ncclResult_t get_version(int* version) override { return get_version_(version); }
  ncclResult_t get_unique_id(ncclUniqueId* id) override { return get_unique_id_(id); }
  ncclResult_t init_rank(ncclComm_t* comm, int size, const ncclUniqueId& id, int rank,
                         ncclConfig_t* config) override {
    return init_rank_(comm, size, id, rank, config);
  }
  ncclResult_t async_error(ncclComm_t comm, ncclResult_t* state) override {
    return async_error_(comm, state);
  }
  ncclResult_t finalize(ncclComm_t comm) override { return finalize_(comm); }
  ncclResult_t destroy(ncclComm_t comm) override { return destroy_(comm); }
  ncclResult_t abort(ncclComm_t comm) override { return abort_(comm); }
  ncclResult_t all_reduce(void* data, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                          ncclComm_t comm, void* stream) override {
    return all_reduce_(data, data, count, type, op, comm, static_cast<cudaStream_t>(stream));
  }
  ncclResult_t broadcast(void* data, std::size_t count, ncclDataType_t type, int root,
                         ncclComm_t comm, void* stream) override {
    return broadcast_(data, data, count, type, root, comm, static_cast<cudaStream_t>(stream));
  }
  ncclResult_t all_gather(const void* mine, void* all, std::size_t count, ncclDataType_t type,
                          ncclComm_t comm, void* stream) override {
    return all_gather_(mine, all, count, type, comm, static_cast<cudaStream_t>(stream));
  }
  ncclResult_t group_start() override { return group_start_(); }
  ncclResult_t group_end() override { return group_end_(); }
  std::string describe(ncclResult_t result, ncclComm_t comm) override {
    std::string text = error_string_(result);
    const char* detail = last_error_(comm);
    return detail != nullptr && *detail != '\0' ? text + " (" + detail + ")" : text;
  }

 private:
  template <typename Function>
  void load(Function*& function, const char* name) {
    function = reinterpret_cast<Function*>(dlsym(handle_, name));
    if (function == nullptr) {
      throw_bad_config(std::string("this libnccl has no ") + name +
                       "; lorascale needs the NCCL of its torch, or a newer one");
    }
  }

  void* handle_ = nullptr;  // never closed: libtorch uses the same library
  decltype(ncclGetVersion)* get_version_;
  decltype(ncclGetUniqueId)* get_unique_id_;
  decltype(ncclCommInitRankConfig)* init_rank_;
  decltype(ncclCommGetAsyncError)* async_error_;
  decltype(ncclCommFinalize)* finalize_;
  decltype(ncclCommDestroy)* destroy_;
  decltype(ncclCommAbort)* abort_;
  decltype(ncclAllReduce)* all_reduce_;
  decltype(ncclBroadcast)* broadcast_;
  decltype(ncclAllGather)* all_gather_;
  decltype(ncclGroupStart)* group_start_;
  decltype(ncclGroupEnd)* group_end_;
  decltype(ncclGetErrorString)* error_string_;
  decltype(ncclGetLastError)* last_error_;
};

}  // namespace

std::unique_ptr<NcclApi> load_nccl() {
  auto library = std::make_unique<NcclLibrary>();
  int version = 0;
  if (library->get_version(&version) != ncclSuccess || version < NCCL_VERSION_CODE) {
    throw_bad_config("the loaded NCCL has version " + std::to_string(version) +
                     ", older than the one this program was built for (" +
                     std::to_string(NCCL_VERSION_CODE) + "); use the one beside its torch");
  }
  return library;
}

}  // namespace lorascale::comm
