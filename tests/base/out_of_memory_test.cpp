// What says that memory ran out, and what only sounds like it.
#include "base/out_of_memory.hpp"

#include <gtest/gtest.h>

namespace lorascale {
namespace {

class NoMemoryTest : public testing::TestWithParam<const char*> {};
class OtherFailureTest : public testing::TestWithParam<const char*> {};

TEST_P(NoMemoryTest, IsKnown) {
  EXPECT_TRUE(tells_of_no_memory(GetParam())) << GetParam();
}

TEST_P(OtherFailureTest, IsNotTakenForIt) {
  EXPECT_FALSE(tells_of_no_memory(GetParam())) << GetParam();
}

INSTANTIATE_TEST_SUITE_P(
    Texts, NoMemoryTest,
    testing::Values(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some "
        "other API call, so the stacktrace below might be incorrect.",
        "CUDA driver error: out of memory", "cudaErrorMemoryAllocation",
        "cuMemCreate failed: CUDA_ERROR_OUT_OF_MEMORY",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasGemmEx( handle, opa, opb )`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasLtCreate(&handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED when calling `cudnnCreate(&handle)`",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "ncclAllReduce on rank 3: unhandled cuda error (run with NCCL_DEBUG=INFO for details) "
        "(Cuda failure 2 'out of memory')",
        "ncclCommInitRankConfig on rank 0: unhandled cuda error (Failed to CUDA calloc 6291456 "
        "bytes)",
        "ncclCommInitRankConfig on rank 0: unhandled system error (Failed to malloc 4096 bytes)",
        "ncclAllReduce: system error (Error: Cannot allocate memory)", "std::bad_alloc",
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"));

INSTANTIATE_TEST_SUITE_P(
    Texts, OtherFailureTest,
    testing::Values(
        "", "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered", "CUDA error: misaligned address",
        "CUDA error: unspecified launch failure", "CUDA error: no kernel image is available",
        "CUDA error: too many resources requested for launch",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasGemmEx(handle)`",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "ncclAllReduce on rank 3: unhandled cuda error (Cuda failure 'invalid argument')",
        "ncclAllReduce on rank 3: remote process exited or there was a network error",
        "The size of tensor a (3) must match the size of tensor b (4)",
        "a plain failure\nException raised from out of memory handler at alloc.cpp:1",
        "a plain failure\nframe #0: c10::OutOfMemoryError::OutOfMemoryError"));

}  // namespace
}  // namespace lorascale
