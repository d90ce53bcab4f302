# Finds libtorch inside the Python environment that scripts/setup.sh makes, and defines:
#   torch::torch       ATen and c10, with the wheel's CUDA libraries when it has them
#   torch::nccl        the wheel's own libnccl, by full path (a second copy in a process breaks torch)
#   LORASCALE_HAVE_CUDA  TRUE when the wheel is a CUDA build and LORASCALE_CUDA allows it
# torch's own CMake files are not used: for a CUDA wheel they insist on nvcc and on NVTX, which a machine
# that only compiles host code does not need. The wheel brings all headers (nvidia/cu13, nvidia/nccl).

set(LORASCALE_PYTHON "" CACHE FILEPATH "Python whose torch is built against (empty: ask scripts/setup.sh)")
set(LORASCALE_CUDA "AUTO" CACHE STRING "AUTO, ON or OFF: build for CUDA and NCCL")
set_property(CACHE LORASCALE_CUDA PROPERTY STRINGS AUTO ON OFF)

if(NOT LORASCALE_PYTHON)
  execute_process(COMMAND "${CMAKE_SOURCE_DIR}/scripts/setup.sh" --print-python
    OUTPUT_VARIABLE printed OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(LORASCALE_PYTHON "${printed}" CACHE FILEPATH "" FORCE)
endif()

execute_process(
  COMMAND "${LORASCALE_PYTHON}" -c
    "import torch, os; print(';'.join([os.path.dirname(torch.__file__), torch.__version__, torch.version.cuda or '', str(int(torch.compiled_with_cxx11_abi()))]))"
  OUTPUT_VARIABLE torch_facts OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
list(GET torch_facts 0 TORCH_ROOT)
list(GET torch_facts 1 TORCH_VERSION)
list(GET torch_facts 2 torch_cuda)
list(GET torch_facts 3 torch_abi)
if(NOT torch_abi)
  message(FATAL_ERROR "this torch (${TORCH_VERSION}) was built with the old C++ ABI; lorascale needs torch >= 2.7")
endif()

get_filename_component(site "${TORCH_ROOT}/.." ABSOLUTE)
set(nvidia "${site}/nvidia")
set(LORASCALE_HAVE_CUDA FALSE)
if(torch_cuda AND NOT LORASCALE_CUDA STREQUAL "OFF")
  if(EXISTS "${nvidia}/cu13/include/cuda_runtime_api.h" AND EXISTS "${nvidia}/nccl/lib/libnccl.so.2")
    set(LORASCALE_HAVE_CUDA TRUE)
  elseif(LORASCALE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LORASCALE_CUDA=ON, but ${nvidia} has no CUDA 13 headers or no NCCL")
  endif()
elseif(LORASCALE_CUDA STREQUAL "ON")
  message(FATAL_ERROR "LORASCALE_CUDA=ON, but torch ${TORCH_VERSION} is a build without CUDA")
endif()

function(lorascale_imported name path)
  add_library(${name} SHARED IMPORTED GLOBAL)
  set_target_properties(${name} PROPERTIES IMPORTED_LOCATION "${path}" IMPORTED_NO_SONAME TRUE)
endfunction()

lorascale_imported(torch::c10 "${TORCH_ROOT}/lib/libc10.so")
lorascale_imported(torch::cpu "${TORCH_ROOT}/lib/libtorch_cpu.so")
add_library(torch::torch INTERFACE IMPORTED GLOBAL)
# After the system's folders: the wheel carries an fmt of its own, which does not match the system's spdlog.
target_compile_options(torch::torch INTERFACE "SHELL:-idirafter ${TORCH_ROOT}/include")
target_link_libraries(torch::torch INTERFACE torch::cpu torch::c10)
if(LORASCALE_HAVE_CUDA)
  lorascale_imported(torch::cudart "${nvidia}/cu13/lib/libcudart.so.13")
  lorascale_imported(torch::c10_cuda "${TORCH_ROOT}/lib/libc10_cuda.so")
  lorascale_imported(torch::cuda "${TORCH_ROOT}/lib/libtorch_cuda.so")
  lorascale_imported(torch::nccl "${nvidia}/nccl/lib/libnccl.so.2")
  target_include_directories(torch::nccl SYSTEM INTERFACE "${nvidia}/nccl/include" "${nvidia}/cu13/include")
  target_include_directories(torch::cudart SYSTEM INTERFACE "${nvidia}/cu13/include")
endif()
message(STATUS "libtorch ${TORCH_VERSION} at ${TORCH_ROOT}; CUDA build: ${LORASCALE_HAVE_CUDA}")
