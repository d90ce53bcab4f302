#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test:
#   scripts/test.sh           everything
#   scripts/test.sh --quick   without the sanitizer build
# Unit and MPI tests run under CTest, comparisons with transformers and peft and the fault tests under pytest; the
# unit tests then run again with AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
quick=false
for argument in "$@"; do
  case "$argument" in
    --quick) quick=true ;;
    -h|--help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "test.sh: unknown argument '$argument' (see --help)" >&2; exit 64 ;;
  esac
done
say() { echo "test: $*"; }
python=$("$here/scripts/setup.sh" --print-python)
cd "$here"

say "building (release)"
scripts/build.sh release
say "unit tests"
ctest --test-dir build/release --output-on-failure -j "$(nproc)"
say "comparisons, faults and scripts"
LORASCALE_PROGRAM="$here/build/release/lorascale" "$python" -m pytest -q -p no:cacheprovider tests

if ! $quick; then
  say "building the unit tests with sanitizers"
  scripts/build.sh asan unit-tests
  say "unit tests with sanitizers"
  ctest --test-dir build/asan --output-on-failure -j "$(nproc)" -L unit
fi
say "all tests passed"
