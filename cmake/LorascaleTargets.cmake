# lorascale_module(NAME [TORCH] SOURCES ... [ALONE ...] [DEPENDS ...]): one folder of src/ as a library that knows only
# what stands below it; lorascale_core gathers all of them. Sources are compiled in batches (lorascale_batches), except
# those of ALONE, which have options of their own.
# lorascale_test(NAME [TORCH] [INSTRUCTIONS] SOURCES ... [DEPENDS ...] [RANKS 1 2 ...] [TIMEOUT s] [LABELS ...]): a
# GoogleTest program.
# Without RANKS it is an ordinary one. With RANKS it runs under mpirun (tests/support/mpi_main.cpp), once per number of
# ranks. A program is one CTest entry: a process for each of its tests would spend most of the time on loading libtorch.
# It shares the precompiled header of base_test, or with TORCH of nn_test, with the other tests. With INSTRUCTIONS it runs
# twice more, as CPUs with AVX2 alone and with AVX-512 but without bf16 would run it (the latter is the former where there
# is no AVX-512).

set(LORASCALE_BATCH 6 CACHE STRING "How many sources of a module are compiled at once; 1: each by itself")

# Modules that compute nothing themselves, and tests: they are built in two thirds of the time, and what they call keeps
# its own options. A build with sanitizers has its own for all.
set(LORASCALE_QUICK_MODULES io config prepare adapters workloads cli)
set(LORASCALE_QUICK_OPTIONS)
if(NOT LORASCALE_SANITIZE)
  set(LORASCALE_QUICK_OPTIONS -O1)
endif()

# Writes files that include up to LORASCALE_BATCH of the sources each, and returns their paths in `batches`: most of the
# time of a small source goes into the headers of libtorch and the standard library. Paths in them are relative, so that
# ccache knows them again in another checkout, as it would not those of CMake's UNITY_BUILD.
function(lorascale_batches name sources batches)
  if(LORASCALE_BATCH LESS_EQUAL 1)
    set(${batches} ${sources} PARENT_SCOPE)
    return()
  endif()
  set(paths)
  set(text)
  set(in_batch 0)
  list(LENGTH sources left)
  foreach(source IN LISTS sources)
    string(APPEND text "#include \"${name}/${source}\"\n")
    math(EXPR in_batch "${in_batch} + 1")
    math(EXPR left "${left} - 1")
    if(in_batch EQUAL LORASCALE_BATCH OR left EQUAL 0)
      list(LENGTH paths batch)
      set(path "${CMAKE_CURRENT_BINARY_DIR}/batch_${batch}.cpp")
      file(CONFIGURE OUTPUT "${path}" CONTENT "${text}" @ONLY)
      list(APPEND paths "${path}")
      set(text)
      set(in_batch 0)
    endif()
  endforeach()
  set(${batches} ${paths} PARENT_SCOPE)
endfunction()

function(lorascale_module name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;ALONE;DEPENDS" ${ARGN})
  lorascale_batches(${name} "${ARG_SOURCES}" batches)
  add_library(lorascale_${name} STATIC ${batches} ${ARG_ALONE})
  target_include_directories(lorascale_${name} PUBLIC "${CMAKE_SOURCE_DIR}/src")
  if(name IN_LIST LORASCALE_QUICK_MODULES)
    target_compile_options(lorascale_${name} PRIVATE ${LORASCALE_QUICK_OPTIONS})
  endif()
  target_link_libraries(lorascale_${name} PUBLIC ${ARG_DEPENDS})
  if(ARG_TORCH)
    target_link_libraries(lorascale_${name} PUBLIC torch::torch)
    # One precompiled header for all: made by the lowest module that uses libtorch.
    if(name STREQUAL "nn")
      target_precompile_headers(lorascale_nn PRIVATE "${CMAKE_SOURCE_DIR}/src/torch_pch.hpp")
    else()
      target_precompile_headers(lorascale_${name} REUSE_FROM lorascale_nn)
    endif()
  endif()
endfunction()

# Several ranks share the cores of a test machine, and OpenMPI refuses root unless told otherwise.
set(LORASCALE_MPIRUN ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none)
set(LORASCALE_TEST_ENVIRONMENT
  "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMP_NUM_THREADS=1")

function(lorascale_test name)
  cmake_parse_arguments(ARG "TORCH;INSTRUCTIONS" "TIMEOUT" "SOURCES;DEPENDS;RANKS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 600)
  endif()
  if(LORASCALE_SANITIZE)
    math(EXPR ARG_TIMEOUT "2 * ${ARG_TIMEOUT}")
  endif()
  add_executable(${name} ${ARG_SOURCES})
  if(NOT ARG_RANKS)
    add_dependencies(unit-tests ${name})
  endif()
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_compile_definitions(${name} PRIVATE LORASCALE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE ${LORASCALE_QUICK_OPTIONS})
  if(ARG_TORCH)
    set(owner nn_test)
    set(header torch_test_pch.hpp)
  else()
    set(owner base_test)
    set(header test_pch.hpp)
  endif()
  if(name STREQUAL owner)
    target_precompile_headers(${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests/support/${header}")
  else()
    target_precompile_headers(${name} REUSE_FROM ${owner})
  endif()
  if(ARG_RANKS)
    target_sources(${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests/support/mpi_main.cpp")
    target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gtest GTest::gmock MPI::MPI_C)
    foreach(ranks IN LISTS ARG_RANKS)
      add_test(NAME ${name}.np${ranks}
        COMMAND ${LORASCALE_MPIRUN} -n ${ranks} $<TARGET_FILE:${name}>)
      set_tests_properties(${name}.np${ranks} PROPERTIES TIMEOUT ${ARG_TIMEOUT} PROCESSORS 2
        ENVIRONMENT "${LORASCALE_TEST_ENVIRONMENT}" LABELS "mpi;${ARG_LABELS}")
    endforeach()
  else()
    target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gtest GTest::gmock GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name} --gtest_brief=1)
    set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${LORASCALE_TEST_ENVIRONMENT}"
      LABELS "unit;${ARG_LABELS}")
    if(ARG_INSTRUCTIONS)
      lorascale_test_instructions(${name} avx2 "ATEN_CPU_CAPABILITY=avx2;ONEDNN_MAX_CPU_ISA=AVX2")
      lorascale_test_instructions(${name} avx512 "ONEDNN_MAX_CPU_ISA=AVX512_CORE")
    endif()
  endif()
endfunction()

function(lorascale_test_instructions name suffix environment)
  add_test(NAME ${name}.${suffix} COMMAND ${name} --gtest_brief=1)
  set_tests_properties(${name}.${suffix} PROPERTIES TIMEOUT 300 LABELS "instructions"
    ENVIRONMENT "${LORASCALE_TEST_ENVIRONMENT};${environment}")
endfunction()
