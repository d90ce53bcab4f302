#!/usr/bin/env bash
# Installs what lorascale needs: Debian packages (scripts/debian-packages.txt) and a Python environment
# (requirements.txt) outside the checkout. Running it again costs a second and changes nothing.
#   scripts/setup.sh                 install, and say what was done
#   scripts/setup.sh --print-python  print the path of the environment's Python (installs first if needed)
# In a package of the built program (scripts/bundle.sh, cmake --install) the Python environment is all it needs.
# LORASCALE_HOME chooses where the environment lives (default: ~/.cache/lorascale).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

print_python=false
for argument in "$@"; do
  case "$argument" in
    --print-python) print_python=true ;;
    -h|--help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "setup.sh: unknown argument '$argument' (see --help)" >&2; exit 64 ;;
  esac
done
say() { echo "setup: $*" >&2; }

# 1. Debian packages, of which a built program needs none.
missing=()
if [[ -L $here/build/release/lorascale && ! -e $here/CMakeLists.txt ]]; then
  :
elif command -v dpkg-query >/dev/null; then
  while read -r package; do
    case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)" in
      *"install ok installed") ;;
      *) missing+=("$package") ;;
    esac
  done < <(sed 's/#.*//; /^[[:space:]]*$/d' "$here/scripts/debian-packages.txt")
fi
if ((${#missing[@]})); then
  elevate=()
  if ((EUID != 0)); then
    # sudo may ask for a password where somebody is there to type it.
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [[ -t 0 && -t 2 ]] && sudo -v; }; }; then
      elevate=(sudo)
    else
      say "these Debian packages are missing and need an administrator:"
      say "  apt-get install ${missing[*]}"
      exit 69
    fi
  fi
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  log=$(mktemp)
  if ! { "${elevate[@]}" apt-get update &&
         "${elevate[@]}" env DEBIAN_FRONTEND=noninteractive \
           apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    say "apt-get failed; its whole log is $log"
    exit 69
  fi
  rm -f "$log"
fi

# 2. The Python environment, keyed by the requirements: a second checkout finds it ready.
hash=$(sha256sum "$here/requirements.txt" | cut -c1-12)
root=${LORASCALE_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/lorascale}
environment="$root/python-$hash"
python="$environment/bin/python"
if [[ ! -e "$environment/.complete" ]]; then
  mkdir -p "$root"
  exec 9>"$root/python-$hash.lock"
  flock 9  # two set-ups at once would write the same folder
  if [[ ! -e "$environment/.complete" ]]; then
    say "making the Python environment $environment (several GB, once)"
    rm -rf "$environment"
    base=/usr/bin/python3
    [[ -x "$base" ]] || base=$(command -v python3)
    "$base" -m venv "$environment"
    "$python" -m pip install --quiet --disable-pip-version-check --retries 5 \
      -r "$here/requirements.txt" >&2
    touch "$environment/.complete"
  fi
  exec 9>&-
fi

if $print_python; then
  echo "$python"
else
  say "ready: Python is $python"
fi
