#!/usr/bin/env bash
# A real chat model on two CPU cores: SmolLM2-135M-Instruct is fetched, learns to answer as a pirate from some 200 short
# chats in its own chat template, and is compared with peft and transformers. Run again, it does only what is left.
#   scripts/smollm2_demo.sh           everything
#   --ranks N            MPI ranks (default: 2)
#   --set KEY=VALUE      a setting of configs/smollm2-pirate.yaml for this run; may be repeated
#   --output FOLDER      run folder (default: runs/smollm2-pirate); the merged model goes to its merged/
#   --data FOLDER        data folder (default: data/smollm2-pirate)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "smollm2_demo: $*"; }
fail() {
  local code=$1
  shift
  echo "smollm2_demo: $*" >&2
  exit "$code"
}

place=$here
[[ -w "$place" ]] || place=$PWD  # a package that an administrator installed
ranks=2 run="$place/runs/smollm2-pirate" data="$place/data/smollm2-pirate" settings=()
while (($#)); do
  case "$1" in
    -h|--help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --ranks|--set|--output|--data) ;;
    *) fail 64 "unknown argument '$1' (see --help)" ;;
  esac
  [[ $# -ge 2 && -n "$2" ]] || fail 64 "$1 needs a value (see --help)"
  case "$1" in
    --ranks) ranks=$2 ;;
    --set) settings+=(--set "$2") ;;
    --output) run=$(realpath -ms -- "$2") ;;
    --data) data=$(realpath -ms -- "$2") ;;
  esac
  shift 2
done
[[ "$ranks" =~ ^[1-9][0-9]{0,3}$ ]] || fail 64 "--ranks takes a whole number from 1 to 9999, not '$ranks'"
# Paths below the checkout are shown, and kept in the run's own config, relative to it.
short() { if [[ "$1" == "$here"/* ]]; then echo "${1#"$here"/}"; else echo "$1"; fi; }
run=$(short "$run") data=$(short "$data")
cd "$here"

python=$(scripts/setup.sh --print-python)
export LORASCALE_PYTHON=$python  # a bundle finds its torch there
program=${LORASCALE_PROGRAM:-}
if [[ -z "$program" && ! -e CMakeLists.txt ]]; then
  program=build/release/lorascale  # of a package
elif [[ -z "$program" ]]; then
  say "building (the first time takes some minutes)"
  scripts/build.sh release lorascale
  program=build/release/lorascale
fi
model=$(scripts/models/smollm2.sh)
say "model: $model"
prompts=("What is the capital of France?" "What is a young tiger called?" "How do I make a cup of tea?")

if [[ ! -f "$data/train.h5" ]]; then
  mkdir -p "$data"
  "$python" scripts/demo/pirate.py "$data/pirate.jsonl"
  "$python" scripts/prepare_text.py "$data/pirate.jsonl" --tokenizer "$model" --force \
    --output "$data/train.h5" --validation "$data/validation.h5" "${prompts[@]/#/--prompt=}"
fi

config=(configs/smollm2-pirate.yaml --set model.path="$model" --set run.output_dir="$run"
        --set data.train="$data/train.h5" --set data.validation="$data/validation.h5" "${settings[@]}")
code=0
begin=$SECONDS
LORASCALE_PROGRAM=$program launch/mpirun.sh -n "$ranks" train "${config[@]}" || code=$?
case "$code" in
  0) say "training took $((SECONDS - begin)) s" ;;
  75) say "stopped and saved; run the same command again to go on"; exit 75 ;;
  *) fail "$code" "training ended with exit code $code; its messages are above and in $run/log.txt" ;;
esac
"$python" scripts/report.py "$run" --program "$program"

rm -rf "$run/merged"
"$program" merge --model "$model" --adapter "$run/adapter" --output "$run/merged"
say "the same answers by lorascale, peft and transformers:"
"$python" scripts/demo/same_answers.py --program "$program" --model "$model" --adapter "$run/adapter" \
  --merged "$run/merged" --data "$data/train.h5" "${prompts[@]}"
