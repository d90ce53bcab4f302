# What the demonstrations share. Sourced with `speaker` and `here` (the checkout or package) set.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # for and from the sourcing script

say() { echo "$speaker: $*"; }

fail() {  # CODE MESSAGE
  local code=$1
  shift
  echo "$speaker: $*" >&2
  exit "$code"
}

absolute() { realpath -ms -- "$1"; }  # links are kept: --fresh will not follow one

# Where folders are made: here, unless this is a package that an administrator installed.
place=$here
[[ -w "$place" ]] || place=$PWD

# Paths below the checkout are shown, and kept in the run's own config, relative to it.
short() { if [[ "$1" == "$here"/* ]]; then echo "${1#"$here"/}"; else echo "$1"; fi; }

require_ranks() {  # WORD
  [[ "$1" =~ ^[1-9][0-9]{0,3}$ ]] || fail 64 "--ranks takes a whole number from 1 to 9999, not '$1'"
}

# Reads the arguments of a demonstration: into ranks, settings, run and data, and the values of its own options into the
# array `own`, by their names; --fresh, where it is one of them, sets `fresh`. The help is the comment of the script.
read_arguments() {  # "OWN OPTIONS" ARGUMENTS...
  local names=" --ranks --set --output --data $1 "
  shift
  while (($#)); do
    case "$1" in
      -h|--help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
      --fresh) if [[ "$names" == *" --fresh "* ]]; then fresh=true; shift; continue; fi ;;
    esac
    [[ "$names" == *" $1 "* ]] || fail 64 "unknown argument '$1' (see --help)"
    [[ -n "${2-}" ]] || fail 64 "$1 needs a value (see --help)"
    case "$1" in
      --ranks) ranks=$2 ;;
      --set) settings+=(--set "$2") ;;
      --output) run=$(absolute "$2") ;;
      --data) data=$(absolute "$2") ;;
      *) own[$1]=$2 ;;
    esac
    shift 2
  done
  require_ranks "$ranks"
  local setting
  for setting in "${settings[@]}"; do
    case "$setting" in
      run.output_dir=*) fail 64 "use --output FOLDER instead of --set $setting" ;;
      data.train=*|data.validation=*) fail 64 "use --data FOLDER instead of --set $setting" ;;
    esac
  done
  run=$(short "$run") data=$(short "$data")
}

# Sets python and program, which is built where this is a checkout. In the folder `here`.
find_programs() {
  python=$(scripts/setup.sh --print-python)
  export LORASCALE_PYTHON=$python  # a bundle finds its torch there
  program=${LORASCALE_PROGRAM:-}
  [[ -z "$program" ]] || return 0
  program=build/release/lorascale
  [[ -e CMakeLists.txt ]] || return 0  # a package has it
  say "building (the first time takes some minutes)"
  scripts/build.sh release lorascale
}

# A machine whose package lists were never fetched (or grew old) cannot name the files to download.
fetch_package_lists() {
  local elevate=()
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || return 1
    elevate=(sudo)
  fi
  command -v apt-get >/dev/null || return 1
  say "fetching the package lists"
  "${elevate[@]}" apt-get update >/dev/null
}

# What a training that ended with CODE means for a demonstration.
judge_training() {  # CODE RUN_FOLDER
  case "$1" in
    0) ;;
    75) say "stopped and saved; run the same command again to go on"; exit 75 ;;
    *) fail "$1" "training ended with exit code $1; its messages are above and in $2/log.txt" ;;
  esac
}

outcome() { sed -n 's/^ *"outcome": *"\([a-z]*\)".*/\1/p' "$run/status.json" 2>/dev/null || true; }

delete_run() {
  [[ -e "$run" || -L "$run" ]] || return 0
  if [[ -L "$run" || ! -d "$run" ]]; then
    fail 73 "$run is not a folder of its own; --fresh deletes run folders only"
  fi
  if [[ ! -f "$run/metrics.jsonl" || ! -f "$run/config.yaml" ]] && [[ -n "$(ls -A "$run")" ]]; then
    fail 73 "$run is not a run folder (it has no config.yaml and metrics.jsonl); remove it yourself or use --output"
  fi
  if [[ -f "$run/.lock" ]] && ! flock --nonblock "$run/.lock" true; then
    fail 73 "$run is in use by a running lorascale; stop that first"
  fi
  rm -rf -- "$run"
  say "deleted $run"
}

# In a job of its own, so that a request to stop this script reaches the training, too: it saves before both end.
launch() {
  local child='' code name stops=0 before
  for name in INT TERM HUP; do
    # shellcheck disable=SC2064 # this very signal
    trap "stops=\$((stops + 1)); [[ -z \$child ]] || kill -s $name \$child 2>/dev/null || true" "$name"
  done
  trap '' TTOU  # a terminal may stop background jobs that write
  set -m        # without it a background job would ignore Ctrl-C
  LORASCALE_PROGRAM=$program "$here/launch/mpirun.sh" "$@" &
  child=$!
  set +m
  ((stops == 0)) || kill "$child" 2>/dev/null || true  # a request that came before there was a child
  while :; do
    before=$stops code=0
    wait "$child" || code=$?
    ((stops == before)) && break  # else a signal ended the wait
  done
  trap - INT TERM HUP TTOU
  return "$code"
}

# Trains, unless that is done, and reports. ARGUMENTS are the run's configuration with its data.
train_and_report() {  # ARGUMENTS...
  if $fresh; then delete_run; fi
  # A finished run is not touched; the trainer itself decides what other settings mean to it.
  if [[ "$(outcome)" == done && ${#settings[@]} == 0 ]]; then
    say "training: $run is finished (--fresh trains again)"
  else
    say "training: $run, $ranks MPI rank(s); Ctrl-C saves, and the same command goes on from there"
    local code=0
    launch -n "$ranks" train "$@" --set run.output_dir="$run" "${settings[@]}" || code=$?
    judge_training "$code" "$run"
  fi
  "$python" scripts/report.py "$run" --program "$program"
}
