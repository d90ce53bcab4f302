#!/usr/bin/env bash
# A LoRA learns another hand's style, on two CPU cores: from 60 ink drawings with a word of their own ("sumi, a dog") a
# small Stable Diffusion learns to draw in ink, also what none of them shows, and goes on painting where the word is
# missing. Works from any folder; run again, it does only what is left.
#   scripts/quickstart.sh pictures         the demonstration, some minutes
#   scripts/quickstart.sh pictures --fresh
#                        trains again (deletes the run folder, nothing else)
#   --ranks N            MPI ranks (default: 2); the result does not depend on it, the time does
#   --set KEY=VALUE      a setting of configs/pictures.yaml for this run; may be repeated
#   --output FOLDER      run folder (default: runs/pictures)
#   --data FOLDER        data folder (default: data/emoji)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

speaker=quickstart
# shellcheck source=scripts/demo/common.sh
source "$here/scripts/demo/common.sh"

fresh=false ranks=2 run="$place/runs/pictures" data="$place/data/emoji" settings=()
read_arguments --fresh "$@"
cd "$here"

# Captions are prepared with the tokenizer of the model that the run will have.
model=scripts/demo/picture-model
for setting in "${settings[@]}"; do
  [[ "$setting" != model.path=* ]] || model=${setting#model.path=}
done
[[ -f "$model/model_index.json" ]] ||
  fail 65 "$model is no model's folder in diffusers' form; scripts/demo/pretrain_pictures.sh makes the demonstration's"

make_pictures() {
  local code=0 make=("$python" scripts/demo/emoji.py --output "$data")
  "${make[@]}" || code=$?
  # Not for packages: a folder of other things has no settings, and one of other settings has all.
  if ((code == 65)) && [[ -f "$data/settings.json" && ! -d "$data/vocabulary" ]] && fetch_package_lists; then
    code=0
    "${make[@]}" || code=$?
  fi
  ((code == 0)) || fail "$code" "no pictures were made, for the reason above"
}

prepare() {  # FOLDER FILE OPTIONS...
  [[ -f "$2" ]] || "$python" scripts/prepare_images.py "$1" --model "$model" --resolution 64 --bucket-step 8 \
    --no-buckets --output "$2" "${@:3}"
}

make_data() {
  say "data: $data, of free emoji from Debian's package fonts-noto-color-emoji"
  make_pictures
  # As many views of drawings as of the pictures that keep the rest as it is: there are twice as many of those.
  prepare "$data/style" "$data/sumi.h5" --regularisation "$data/prior" --repeats 2
  prepare "$data/held-out" "$data/sumi-held-out.h5"
}

find_programs
make_data
train_and_report configs/pictures.yaml --set data.train="$data/sumi.h5" --set data.validation="$data/sumi-held-out.h5"
say "a classifier's word on the pictures (it learns some minutes, once):"
say "    \"\$(scripts/setup.sh --print-python)\" scripts/demo/judge_pictures.py ${run@Q} --data ${data@Q}"
