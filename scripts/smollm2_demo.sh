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

speaker=smollm2_demo
# shellcheck source=scripts/demo/common.sh
source "$here/scripts/demo/common.sh"

ranks=2 run="$place/runs/smollm2-pirate" data="$place/data/smollm2-pirate" settings=()
read_arguments "" "$@"
cd "$here"

find_programs
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
judge_training "$code" "$run"
say "training took $((SECONDS - begin)) s"
"$python" scripts/report.py "$run" --program "$program"

rm -rf "$run/merged"
"$program" merge --model "$model" --adapter "$run/adapter" --output "$run/merged"
say "the same answers by lorascale, peft and transformers:"
"$python" scripts/demo/same_answers.py --program "$program" --model "$model" --adapter "$run/adapter" \
  --merged "$run/merged" --data "$data/train.h5" "${prompts[@]}"
