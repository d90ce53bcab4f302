#!/usr/bin/env bash
# The day there is a GPU: what no machine without one can check, in one command of at most eight minutes.
#
#   scripts/gpu_day.sh pack [FILE]                 here: program, libraries and test material into one file
#                                                  (default: build/gpu-day.tar.gz)
#   scripts/gpu_day.sh [run] [OPTIONS]             there: all checks; the file is build/gpu-day.tar.gz, or --package FILE
#   scripts/gpu_day.sh run --stand-in [OPTIONS]    the same on a CPU with small sizes: tries the script itself
#
# OPTIONS  --output DIR   gpu-day.json, gpu-day.md and gpu-day.log (default: gpu-day-results)
#          --parts 1,4,7  only these; --seconds S: of the whole day (480); --work DIR: scratch, 25 GB
#          --program F, --launcher F: others than the package's
# The machine needs a GPU with its driver, bash, and a Python (LORASCALE_PYTHON, or python3) with the CUDA torch of
# requirements.txt, numpy, transformers, peft and safetensors. It needs no network, MPI, HDF5 or compiler.
# Exit code: 0 where no check failed, 1 where one did, 64 for a wrong command line, 65 for a package that is none, 69 without
# a GPU, 73 where --output holds another day. docs/gpu-day.md has the rest.
set -euo pipefail
here=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/.." && pwd)
fail() { echo "gpu_day.sh: $*" >&2; exit 64; }

pack() {
  local output=${1:-$here/build/gpu-day.tar.gz} stage python
  python=$("$here/scripts/setup.sh" --print-python)
  [[ -x $here/build/release/lorascale ]] || fail "build/release/lorascale is missing; run scripts/build.sh first"
  stage=$(mktemp -d)
  # shellcheck disable=SC2064 # this very folder
  trap "rm -rf '$stage'" EXIT
  mkdir -p "$stage/gpu-day/scripts/gpu_day" "$(dirname "$output")"
  "$here/scripts/bundle.sh" --mpi copy --output "$stage/bundle.tar.gz"
  mkdir "$stage/gpu-day/bundle"
  tar -C "$stage/gpu-day/bundle" --strip-components=1 -xf "$stage/bundle.tar.gz"
  cp "$here/scripts/gpu_day.sh" "$stage/gpu-day/scripts/"
  cp "$here"/scripts/gpu_day/*.py "$stage/gpu-day/scripts/gpu_day/"
  "${CC:-cc}" -O2 -Wall -Wextra -fPIC -shared -o "$stage/gpu-day/libcount.so" "$here/scripts/gpu_day/count.c" -ldl
  PYTHONPATH=$here/scripts "$python" -W ignore -m gpu_day.material "$here/build/release/lorascale" "$stage/gpu-day/material"
  tar -C "$stage" --owner=0 --group=0 -cf - gpu-day | gzip -n9 >"$output.part"
  mv "$output.part" "$output"
  echo "gpu_day.sh: $output ($(du -h "$output" | cut -f1))" >&2
}

run() {
  local package='' python=${LORASCALE_PYTHON:-python3} rest=() missing
  while (($#)); do
    case $1 in
      --package) (($# >= 2)) || fail "--package needs a value"; package=$2; shift 2 ;;
      *) rest+=("$1"); shift ;;
    esac
  done
  command -v "$python" >/dev/null || fail "there is no $python; set LORASCALE_PYTHON"
  missing=$("$python" -c 'import importlib.util as u
print(*[name for name in ("torch", "numpy", "transformers", "peft", "safetensors") if u.find_spec(name) is None])')
  [[ -z $missing ]] || fail "$python has no $missing; set LORASCALE_PYTHON to one that has (requirements.txt)"
  if [[ -z $package ]]; then
    if [[ -d $here/material ]]; then package=$here; else package=$here/build/gpu-day.tar.gz; fi
  fi
  [[ -e $package ]] || fail "$package is missing; make it where lorascale is built: scripts/gpu_day.sh pack"
  export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$here/scripts${PYTHONPATH:+:$PYTHONPATH}
  exec "$python" -m gpu_day --package "$package" "${rest[@]}"  # signals reach it
}

case ${1:-} in
  -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" ;;
  pack) shift; (($# <= 1)) || fail "pack takes one file"; pack "$@" ;;
  run) shift; run "$@" ;;
  *) run "$@" ;;
esac
