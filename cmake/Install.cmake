# cmake --install BUILD --prefix PREFIX: a tree that may be moved as a whole.
#   bin/lorascale                  finds libtorch where it was built against, or in lib/lorascale of the tree
#   share/lorascale/               what README and docs name: launch/, cluster/, configs/, docs/, scripts/ with the
#                                  demonstration model, and build/release/lorascale, a link, so that their commands
#                                  work as printed
# A tarball for machines without libtorch or the Debian packages: scripts/bundle.sh.
include(GNUInstallDirs)
option(LORASCALE_INSTALL_TORCH "Install copies of libtorch and its CUDA libraries too (several GB)" OFF)

set(share "${CMAKE_INSTALL_DATADIR}/lorascale")
if(LORASCALE_INSTALL_TORCH)
  # The wheel's libraries find those of NVIDIA beside torch/: keep that order of folders.
  install(DIRECTORY "${TORCH_ROOT}/lib/" DESTINATION lib/lorascale/torch/lib USE_SOURCE_PERMISSIONS
    FILES_MATCHING PATTERN "*.so*" PATTERN "libtorch_python.so" EXCLUDE PATTERN "libshm*" EXCLUDE)
  install(DIRECTORY "${TORCH_ROOT}/../nvidia" DESTINATION lib/lorascale OPTIONAL USE_SOURCE_PERMISSIONS
    FILES_MATCHING PATTERN "*.so*")
  set(torch_folder "$ORIGIN/../lib/lorascale/torch/lib")
else()
  set(torch_folder "${TORCH_ROOT}/lib")
endif()
if(TARGET lorascale)
  set_target_properties(lorascale PROPERTIES
    INSTALL_RPATH "${torch_folder}" INSTALL_RPATH_USE_LINK_PATH OFF)
endif()

install(DIRECTORY launch cluster configs docs DESTINATION "${share}" USE_SOURCE_PERMISSIONS)
# All but what needs the sources.
install(DIRECTORY scripts DESTINATION "${share}" USE_SOURCE_PERMISSIONS
  PATTERN "__pycache__" EXCLUDE
  REGEX "/scripts/(build|bundle|lint|test)\\.sh$" EXCLUDE
  REGEX "/scripts/mutate\\.py$" EXCLUDE)
install(FILES README.md CHANGELOG.md LICENSE requirements.txt DESTINATION "${share}")
install(CODE "
  # --prefix may be relative to where cmake is called.
  get_filename_component(root \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}\" ABSOLUTE)
  set(place \"\${root}/${share}/build/release\")
  file(MAKE_DIRECTORY \"\${place}\")
  file(RELATIVE_PATH program \"\${place}\" \"\${root}/bin/lorascale\")
  file(CREATE_LINK \"\${program}\" \"\${place}/lorascale\" SYMBOLIC)")
