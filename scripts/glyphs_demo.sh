#!/usr/bin/env bash
# Image classification on two CPU cores, without a data set from the internet: pictures of letters are made from the
# fonts of Debian's packages, a residual network learns them, and its course is reported. Run again, it does only what
# is left.
#   scripts/glyphs_demo.sh            everything
#   --ranks N            MPI ranks (default: 2); the result does not depend on it, the time does
#   --set KEY=VALUE      a setting of configs/glyphs.yaml for this run; may be repeated
#   --output FOLDER      run folder (default: runs/glyphs)
#   --data FOLDER        data folder (default: data/glyphs)
#   --fonts FOLDER       the fonts in this folder, however few, instead of those of the packages
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

speaker=glyphs_demo
# shellcheck source=scripts/demo/common.sh
source "$here/scripts/demo/common.sh"

ranks=2 run="$place/runs/glyphs" data="$place/data/glyphs" settings=() fonts=()
declare -A own=()
read_arguments --fonts "$@"
[[ -z "${own[--fonts]-}" ]] || fonts=(--fonts "$(absolute "${own[--fonts]}")" --minimum-families 2)
cd "$here"

make_pictures() {
  "$python" scripts/demo/glyphs.py --output "$data/pictures" "${fonts[@]}" && return
  # With a folder of fonts, or where the lists are there, it was something else, and is said again.
  ((${#fonts[@]} == 0)) && fetch_package_lists && "$python" scripts/demo/glyphs.py --output "$data/pictures"
}

# Each of these appears whole or not at all.
make_data() {
  mkdir -p "$data"
  [[ -d "$data/pictures" ]] || make_pictures || fail 65 "no pictures without fonts; --fonts FOLDER takes fonts of your own"
  [[ -f "$data/train.h5" ]] ||
    "$python" scripts/prepare_images.py "$data/pictures/train" --channels 1 --output "$data/train.h5"
  [[ -f "$data/validation.h5" ]] ||
    "$python" scripts/prepare_images.py "$data/pictures/validation" --classes-from "$data/train.h5" \
      --output "$data/validation.h5"
}

find_programs
make_data
code=0
begin=$SECONDS
LORASCALE_PROGRAM=$program launch/mpirun.sh -n "$ranks" train configs/glyphs.yaml --set run.output_dir="$run" \
  --set data.train="$data/train.h5" --set data.validation="$data/validation.h5" "${settings[@]}" || code=$?
judge_training "$code" "$run"
say "training took $((SECONDS - begin)) s"
"$python" scripts/report.py "$run" --program "$program"
