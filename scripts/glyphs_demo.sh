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
folder=${own[--fonts]:+$(absolute "${own[--fonts]}")}
[[ -z "$folder" ]] || fonts=(--fonts "$folder" --minimum-families 2)
cd "$here"

# The data folder remembers its fonts: the same command goes on where it was, and other fonts are not passed over.
check_fonts() {
  [[ -n "$folder" && ( -e "$data/pictures" || -e "$data/train.h5" ) ]] || return 0
  [[ "$(cat "$data/fonts.txt" 2>/dev/null)" == "$folder" ]] ||
    fail 64 "$data holds pictures of other fonts: remove it, or choose another folder with --data"
}

make_pictures() {
  local code=0 make=("$python" scripts/demo/glyphs.py --output "$data/pictures" "${fonts[@]}")
  echo "$folder" >"$data/fonts.txt"
  "${make[@]}" || code=$?
  # With a folder of fonts, or where the lists are there, it was something else, and is said again.
  if ((code == 65)) && [[ -z "$folder" ]] && fetch_package_lists; then
    code=0
    "${make[@]}" || code=$?
  fi
  ((code)) || return 0
  [[ "$code$folder" != 65 ]] || fail 65 "no pictures without fonts; --fonts FOLDER takes fonts of your own"
  fail "$code" "no pictures were made, for the reason above"
}

# Each of these appears whole or not at all.
make_data() {
  mkdir -p "$data"
  [[ -d "$data/pictures" ]] || make_pictures
  [[ -f "$data/train.h5" ]] ||
    "$python" scripts/prepare_images.py "$data/pictures/train" --channels 1 --output "$data/train.h5"
  [[ -f "$data/validation.h5" ]] ||
    "$python" scripts/prepare_images.py "$data/pictures/validation" --classes-from "$data/train.h5" \
      --output "$data/validation.h5"
}

check_fonts
find_programs
make_data
code=0
begin=$SECONDS
LORASCALE_PROGRAM=$program launch/mpirun.sh -n "$ranks" train configs/glyphs.yaml --set run.output_dir="$run" \
  --set data.train="$data/train.h5" --set data.validation="$data/validation.h5" "${settings[@]}" || code=$?
judge_training "$code" "$run"
say "training took $((SECONDS - begin)) s"
"$python" scripts/report.py "$run" --program "$program"
