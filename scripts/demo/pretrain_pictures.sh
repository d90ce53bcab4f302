#!/usr/bin/env bash
# Makes scripts/demo/picture-model again, a Stable Diffusion of seven million parameters, from the pictures up: first its
# autoencoder (some half an hour on two cores), then UNet and text encoder (some hours). The result is in git; nobody needs
# to run this to use lorascale. Run again, it goes on where it was.
#   --ranks N            MPI ranks (default: 2)
#   --denoiser           keeps the autoencoder of scripts/demo/picture-model, and trains the rest
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ranks=2 denoiser=false
while (($#)); do
  case "$1" in
    --ranks) ranks=${2:?--ranks takes a number}; shift 2 ;;
    --denoiser) denoiser=true; shift ;;
    -h|--help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "pretrain_pictures: unknown argument '$1' (see --help)" >&2; exit 64 ;;
  esac
done
python=$("$here/scripts/setup.sh" --print-python)
cd "$here"
mkdir -p data runs

prepare() {  # FOLDER
  [[ -f "$1/train.h5" ]] ||
    "$python" scripts/prepare_images.py "$1/base" --tokenizer "$1/vocabulary" --resolution 64 --bucket-step 8 --no-buckets \
      --output "$1/train.h5" --validation "$1/validation.h5" --validation-fraction 0.02
}

"$python" scripts/demo/emoji.py --output data/emoji
prepare data/emoji
[[ -d runs/pictures-random ]] ||
  "$python" scripts/demo/make_random_pipeline.py data/emoji/vocabulary runs/pictures-random
start=runs/pictures-start
if $denoiser; then
  [[ -d $start ]] || cp -r runs/pictures-random $start
  cp scripts/demo/picture-model/vae/* $start/vae/
elif [[ ! -d $start ]]; then
  # The autoencoder learns from all nouns, of which the rest learns some.
  "$python" scripts/demo/emoji.py --output data/emoji-all --nouns 2000
  prepare data/emoji-all
  launch/mpirun.sh -n "$ranks" train scripts/demo/pretrain-autoencoder.yaml
  cp -r runs/pictures-autoencoder/model $start.part
  "$python" scripts/demo/settle_latents.py $start.part data/emoji/train.h5
  mv $start.part $start
fi
launch/mpirun.sh -n "$ranks" train scripts/demo/pretrain-denoiser.yaml
# The weights in bf16, as the repository keeps them.
"$python" scripts/demo/keep_pipeline.py runs/pictures-denoiser/model scripts/demo/picture-model
