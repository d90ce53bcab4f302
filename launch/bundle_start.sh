#!/usr/bin/env bash
# bin/lorascale of a bundle (scripts/bundle.sh), and bin/mpirun of one that carries Open MPI: finds libtorch and what
# else this machine lends, says in one line what is missing, and becomes the program.
#
#   LORASCALE_TORCH_LIB    folder with libtorch_cpu.so; otherwise the torch of LORASCALE_PYTHON, python3 or python
#   LORASCALE_BUNDLE_LIBS  "all": prefer every library of the bundle to the machine's; otherwise only those it lacks
set -euo pipefail
root=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
fail() { echo "lorascale: $*" >&2; exit 78; }

declare -A fact
while IFS='=' read -r key value; do fact[$key]=$value; done <"$root/libexec/bundle.facts"

glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/[^0-9.]//g' || true)
[[ -n $glibc && $(printf '%s\n' "${fact[glibc]}" "$glibc" | sort -V | head -n 1) == "${fact[glibc]}" ]] ||
  fail "this bundle needs glibc ${fact[glibc]} or newer, this machine has ${glibc:-another C library};" \
    "build lorascale here, or on a machine as old as this one"

if [[ ${fact[mpi]} == copy ]]; then
  # Its plugins, those of PMIx, and none of this machine's hwloc, which may be another version.
  export OPAL_PREFIX=$root/mpi PMIX_PKGLIBDIR=$root/mpi/lib/pmix HWLOC_PLUGINS_PATH=$root/mpi/none
  LD_LIBRARY_PATH=$root/mpi/lib:$root/mpi/lib/openmpi${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
  [[ ${0##*/} != mpirun ]] || exec "$root/mpi/bin/orterun" "$@"
fi

torch_of() {  # PYTHON: its torch's library folder; looks without importing, which takes seconds
  "$1" -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] + "/lib")' \
    2>/dev/null
}
torch=${LORASCALE_TORCH_LIB:-}
if [[ -z $torch ]]; then
  for python in ${LORASCALE_PYTHON:+"$LORASCALE_PYTHON"} python3 python; do
    torch=$(torch_of "$python") && break
    torch=''
  done
fi
[[ -n $torch ]] ||
  fail "no Python with torch was found; run: python3 -m pip install torch==${fact[torch]}, or set LORASCALE_TORCH_LIB"
[[ -e $torch/libtorch_cpu.so ]] || fail "$torch has no libtorch_cpu.so; correct LORASCALE_TORCH_LIB"
if [[ -r $torch/../version.py ]]; then
  # libtorch promises no binary compatibility between versions. +cpu or +cu130 makes no difference.
  version=$(sed -n "s/^__version__ = ['\"]\([0-9.]*\).*/\1/p" "$torch/../version.py" | head -n 1)
  [[ $version == "${fact[torch]}" ]] ||
    fail "this bundle was built for torch ${fact[torch]}, but $torch is torch ${version:-of another kind};" \
      "install torch==${fact[torch]}"
fi

path=$root/lib:$torch
for folder in "$torch"/../../nvidia/{cu13,nccl}/lib; do
  [[ ! -d $folder ]] || path+=:$(realpath "$folder")
done
path+=${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
complaints() { LD_LIBRARY_PATH=$path ldd "$root/libexec/lorascale" 2>&1 | grep -E 'not found|no version information' || true; }
missing=$(complaints)
if [[ $missing == *"libmpi.so."*"not found"* ]] && launcher=$(command -v mpirun); then
  prefix=$(dirname "$(dirname "$(realpath "$launcher")")")
  path+=:$prefix/lib:$prefix/lib64
  missing=$(complaints)
fi
if [[ -n $missing || ${LORASCALE_BUNDLE_LIBS:-} == all ]]; then
  path=$root/lib/fallback:$path
  missing=$(complaints)
fi
[[ $missing != *"libmpi.so."*"not found"* ]] ||
  fail "Open MPI 4 (libmpi.so.40) was not found; load its module, or add its lib folder to LD_LIBRARY_PATH"
[[ $missing != *"not found"* ]] || fail "a library is missing or too old: $(sed -n '/not found/{s/^[[:space:]]*//p;q}' <<<"$missing")"
export LD_LIBRARY_PATH=$path
# A single process needs no daemon of Open MPI, which wants ssh even for this very machine.
[[ -n ${OMPI_COMM_WORLD_SIZE:-}${PMIX_RANK:-}${SLURM_PROCID:-} ]] || export OMPI_MCA_ess_singleton_isolated=1
exec "$root/libexec/lorascale" "$@"
