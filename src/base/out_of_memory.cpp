#include "base/out_of_memory.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace lorascale {
namespace {

// In lower case. Whole phrases: "memory" alone is also in "illegal memory access".
constexpr std::array<std::string_view, 17> kPhrases = {
    "out of memory",                     // cudaGetErrorString, cuGetErrorString, libtorch, NCCL
    "out_of_memory",                     // CUDA_ERROR_OUT_OF_MEMORY
    "outofmemory",                       // names of exceptions
    "cudaerrormemoryallocation",         // cudaGetErrorName
    "cublas_status_alloc_failed",        // and the same of its siblings:
    "cusolver_status_alloc_failed",      //
    "cusparse_status_alloc_failed",      //
    "cudnn_status_alloc_failed",         // cuDNN 8; 9 tells host from device:
    "host_allocation_failed",            // CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED
    "device_allocation_failed",          //
    "failed to cuda calloc",             // NCCL's own log lines, its last error
    "failed to cuda host alloc",         //
    "failed to malloc",                  //
    "can't allocate memory",             // libtorch's allocator for CPUs
    "cannot allocate memory",            // strerror(ENOMEM)
    "std::bad_alloc",                    // what() of the exception, where only its text arrives
    "failed to allocate pinned memory",  // libtorch's allocator for transfers
};

// Where a library could not make its handle, and says no more.
bool is_handle_without_memory(std::string_view text) {
  const auto has = [&](std::string_view part) { return text.find(part) != std::string_view::npos; };
  return has("status_not_initialized") &&
         (has("cublascreate") || has("cublasltcreate") || has("cudnncreate") ||
          has("cusolverdncreate") || has("cusparsecreate"));
}

}  // namespace

bool tells_of_no_memory(std::string_view text) {
  for (const std::string_view backtrace : {"\nException raised from", "\nframe #0"}) {
    text = text.substr(0, text.find(backtrace));
  }
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return is_handle_without_memory(lower) || std::ranges::any_of(kPhrases, [&](auto phrase) {
           return lower.find(phrase) != std::string::npos;
         });
}

}  // namespace lorascale
