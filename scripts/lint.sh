#!/usr/bin/env bash
# Style and static analysis of the C++ sources; nothing is changed.
#   scripts/lint.sh              every source
#   scripts/lint.sh FILE...      some of them
# Needs clang-format and clang-tidy (Debian packages of these names).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case "${1:-}" in
  -h|--help) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
for tool in clang-format clang-tidy; do
  command -v $tool >/dev/null || { echo "lint: $tool is missing: apt-get install $tool" >&2; exit 69; }
done
python=$("$here/scripts/setup.sh" --print-python)
cd "$here"
(($#)) || mapfile -t files < <(git ls-files 'src/*.cpp' 'src/*.hpp' 'tests/*.cpp' 'tests/*.hpp')
(($#)) && files=("$@")

echo "lint: clang-format"
clang-format --dry-run --Werror "${files[@]}"

# Without precompiled headers and each by itself, so that every source must include what it uses.
cmake -S . -B build/lint -G Ninja -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DLORASCALE_BATCH=1 -DLORASCALE_TESTS=OFF \
  -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DLORASCALE_PYTHON="$python" >/dev/null
echo "lint: clang-tidy"
printf '%s\0' "${files[@]}" | grep -z '^src/.*\.cpp$' |
  xargs -0 -r -n 1 -P "$(nproc)" clang-tidy -p build/lint --quiet --extra-arg=-Wno-unknown-warning-option
echo "lint: clean"
