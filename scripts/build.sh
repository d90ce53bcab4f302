#!/usr/bin/env bash
# Builds lorascale: scripts/build.sh [release|debug|asan|tsan] [TARGET ...]
# The program ends up in build/PRESET/lorascale. Installs what is missing first (scripts/setup.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
preset=${1:-release}
shift || true
python=$("$here/scripts/setup.sh" --print-python)
cd "$here"
# Objects compiled in another checkout are as good: paths relative to this one, the precompiled header allowed.
export CCACHE_BASEDIR="$here" CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros
cmake --preset "$preset" -DLORASCALE_PYTHON="$python" >"$here/.cmake-$preset.log" 2>&1 || {
  tail -n 30 "$here/.cmake-$preset.log" >&2
  exit 1
}
rm -f "$here/.cmake-$preset.log"
targets=()
for target in "$@"; do targets+=(--target "$target"); done
cmake --build --preset "$preset" "${targets[@]}"
