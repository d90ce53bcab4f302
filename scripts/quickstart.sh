#!/usr/bin/env bash
# From a bare checkout to a trained adapter: installs what is missing, builds, makes a data set, fine-tunes a LoRA
# adapter on two MPI ranks and reports what it learned. Works from any folder; run again, it does only what is left.
# A package of the built program (scripts/bundle.sh, cmake --install) builds nothing, and where it may not be written
# to, the folders below are made where this is started.
#   scripts/quickstart.sh                  the demonstration: the King James Bible, some minutes on two cores
#   scripts/quickstart.sh --fresh          trains again (deletes the run folder, nothing else)
#   scripts/quickstart.sh --text FILE --output runs/mine --data data/mine
#                                          the same with a text of your own
#   scripts/quickstart.sh pictures         a LoRA for pictures instead: it learns to draw in ink from 60 drawings; with
#                                          --help its options
#   --ranks N            MPI ranks (default: 2); the result does not depend on it, the time does
#   --set KEY=VALUE      a setting of configs/quickstart.yaml for this run; may be repeated
#   --output FOLDER      run folder (default: runs/quickstart)
#   --data FOLDER        data folder (default: data/quickstart)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[[ "${1-}" != pictures ]] || exec "$here/scripts/demo/quickstart_pictures.sh" "${@:2}"

speaker=quickstart
# shellcheck source=scripts/demo/common.sh
source "$here/scripts/demo/common.sh"

fresh=false ranks=2 run="$place/runs/quickstart" data="$place/data/quickstart" settings=()
declare -A own=()
read_arguments "--fresh --text" "$@"
text=${own[--text]:+$(absolute "${own[--text]}")}
[[ -z "$text" || -r "$text" ]] || fail 65 "--text $text cannot be read"
cd "$here"

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

find_programs
make_data
train_and_report configs/quickstart.yaml --set data.train="$data/train.h5" --set data.validation="$data/validation.h5"
