#!/usr/bin/env bash
# Installs what is missing, builds, and runs the tests:
#   scripts/test.sh           all but those that take minutes each
#   scripts/test.sh --quick   without the sanitizer build
#   scripts/test.sh --slow    what takes minutes, too
#   scripts/test.sh --readers what loads picture LoRAs by other programs, too (installs scripts/requirements-readers.txt)
# Unit and MPI tests run under CTest, comparisons with transformers and peft and the fault tests under pytest; the
# unit tests then run again with AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
quick=false slow=false readers=false
for argument in "$@"; do
  case "$argument" in
    --quick) quick=true ;;
    --slow) slow=true LORASCALE_SLOW=1 ;;
    --readers) readers=true ;;
    -h|--help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "test.sh: unknown argument '$argument' (see --help)" >&2; exit 64 ;;
  esac
done
marks=""
$slow || marks="not slow"
$readers || marks="${marks:+$marks and }not readers"
say() { echo "test: $*"; }
python=$("$here/scripts/setup.sh" --print-python)
cd "$here"

say "building (release)"
scripts/build.sh release
# A stage that fails does not hide what the later ones would show: all run, and the last line names those that failed.
failed=()
stage() {
  local name=$1
  shift
  say "$name"
  local begin=$SECONDS
  if "$@"; then say "$name: passed in $((SECONDS - begin)) s"; else
    failed+=("$name")
    say "$name: FAILED after $((SECONDS - begin)) s"
  fi
}
# One worker more than cores: most tests wait for the processes they start, which leaves a core idle.
python_tests() {
  "$python" -m pytest -q -p no:cacheprovider --durations=40 -n "$(($(nproc) + 1))" -m "$marks" tests
}
sanitized() {
  scripts/build.sh asan unit-tests && ctest --test-dir build/asan --output-on-failure -j "$(nproc)" -L unit
}

export LORASCALE_SLOW=${LORASCALE_SLOW:-}  # unit tests that need minutes or much memory look at it
stage "unit and MPI tests" ctest --test-dir build/release --output-on-failure -j "$(nproc)"
export LORASCALE_PROGRAM="$here/build/release/lorascale"
stage "comparisons, faults and scripts" python_tests
$quick || stage "unit tests with sanitizers" sanitized

if ((${#failed[@]})); then
  printf 'test: FAILED: %s\n' "${failed[@]}" >&2
  exit 1
fi
say "all tests passed"
