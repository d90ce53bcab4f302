#!/usr/bin/env bash
# From a bare checkout to a trained adapter: installs what is missing, builds, makes a data set, fine-tunes a LoRA
# adapter on two MPI ranks and reports what it learned. Works from any folder; run again, it does only what is left.
# A package of the built program (scripts/bundle.sh, cmake --install) builds nothing, and where it may not be written
# to, the folders below are made where this is started.
#   scripts/quickstart.sh                  the demonstration: the King James Bible, some minutes on two cores
#   scripts/quickstart.sh --fresh          trains again (deletes the run folder, nothing else)
#   scripts/quickstart.sh --text FILE --output runs/mine --data data/mine
#                                          the same with a text of your own
#   --ranks N            MPI ranks (default: 2); the result does not depend on it, the time does
#   --set KEY=VALUE      a setting of configs/quickstart.yaml for this run; may be repeated
#   --output FOLDER      run folder (default: runs/quickstart)
#   --data FOLDER        data folder (default: data/quickstart)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

speaker=quickstart
# shellcheck source=scripts/demo/common.sh
source "$here/scripts/demo/common.sh"

fresh=false ranks=2 run="$place/runs/quickstart" data="$place/data/quickstart" settings=()
declare -A own=()
arguments=()
for argument in "$@"; do
  if [[ "$argument" == --fresh ]]; then fresh=true; else arguments+=("$argument"); fi
done
read_arguments --text "${arguments[@]}"
text=${own[--text]:+$(absolute "${own[--text]}")}
[[ -z "$text" || -r "$text" ]] || fail 65 "--text $text cannot be read"
cd "$here"

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

make_bible() {
  "$python" scripts/demo/corpora.py --style "$1" && return
  fetch_package_lists && "$python" scripts/demo/corpora.py --style "$1"
}

make_data() {
  local source=bible-kjv-text split=formfeed held_out=0.05 input="$data/text.txt"
  if [[ -n "$text" ]]; then
    source="sha256:$(sha256sum <"$text" | cut -d' ' -f1)" split=paragraph held_out=0.1 input=$text
  fi
  if [[ -f "$data/source" ]]; then
    [[ -z "$text" || "$(<"$data/source")" == "$source" ]] ||
      fail 65 "$data was made from another text; give --data another folder"
    say "data: $data (made before)"
    return
  fi
  mkdir -p "$data"
  if [[ -z "$text" ]]; then
    say "data: the King James Bible, from Debian's package bible-kjv-text"
    make_bible "$input" || fail 65 "the Bible is not to be had; use a text of your own: --text FILE"
  fi
  "$python" scripts/prepare_text.py "$input" --tokenizer bytes --text-split "$split" --force \
    --output "$data/train.h5" --validation "$data/validation.h5" --validation-fraction $held_out
  echo "$source" >"$data/source"  # last: what has it is whole
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
  LORASCALE_PROGRAM=$program launch/mpirun.sh "$@" &
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

train() {
  say "training: $run, $ranks MPI rank(s); Ctrl-C saves, and the same command goes on from there"
  local code=0
  launch -n "$ranks" train configs/quickstart.yaml \
    --set run.output_dir="$run" --set data.train="$data/train.h5" --set data.validation="$data/validation.h5" \
    "${settings[@]}" || code=$?
  judge_training "$code" "$run"
}

find_programs
make_data
if $fresh; then delete_run; fi
# A finished run is not touched; the trainer itself decides what other settings mean to it.
if [[ "$(outcome)" == done && ${#settings[@]} == 0 ]]; then
  say "training: $run is finished (--fresh trains again)"
else
  train
fi
"$python" scripts/report.py "$run" --program "$program"
