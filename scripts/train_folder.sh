#!/usr/bin/env bash
# A LoRA from a folder of pictures, the lora-scripts way. CONFIG is a YAML file in its style or that of kohya's
# sd-scripts (or their TOML), as it stands: the pictures it names are prepared, what is frozen is computed once, the
# LoRA trains and is reported, and OUTPUT_DIR/OUTPUT_NAME.safetensors is what WebUIs load. Run again, it does only what
# is left; Ctrl-C saves, and the same command goes on.
#   scripts/train_folder.sh CONFIG [OPTIONS]
#   --ranks N            MPI ranks, one per GPU (default: 1); the batch size of CONFIG is that of each
#   --label MODEL        a BLIP model's folder: it writes captions for pictures that have none (docs/auto-label.md)
#   --prefix TEXT        put before each caption that it writes, such as a trigger word
#   --tokenizer PATH     where the base model is one file: a tokenizer's folder, or CLIP's bpe_simple_vocab_16e6.txt.gz
#   --set KEY=VALUE      a setting of the trainer (docs/configuration.md); may be repeated
#   --plan               prepares, says what training will be like, and ends
# Paths in CONFIG are relative to where this is started. docs/train-a-folder.md says which key goes where.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

speaker=train_folder
# shellcheck source=scripts/demo/common.sh
source "$here/scripts/demo/common.sh"

source='' ranks=1 settings=() label='' prefix='' tokenizer='' plan=false

read_words() {
  while (($#)); do
    case "$1" in
      -h|--help) sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
      --plan) plan=true; shift; continue ;;
      --ranks|--label|--prefix|--tokenizer|--set)
        [[ -n "${2-}" ]] || fail 64 "$1 needs a value (see --help)" ;;
      -*) fail 64 "unknown argument '$1' (see --help)" ;;
      *) [[ -z "$source" ]] || fail 64 "one CONFIG at a time, not '$source' and '$1' (see --help)"
        source=$1; shift; continue ;;
    esac
    case "$1" in
      --ranks) ranks=$2 ;;
      --label) label=$2 ;;
      --prefix) prefix=$2 ;;
      --tokenizer) tokenizer=$2 ;;
      --set) [[ "$2" != data.train=* ]] || fail 64 "train_data_dir of CONFIG says what is trained on, not --set $2"
        settings+=(--set "$2") ;;
    esac
    shift 2
  done
  [[ -n "$source" ]] || fail 64 "which CONFIG? (see --help)"
  [[ -z "$prefix" || -n "$label" ]] || fail 64 "--prefix is for the captions that --label writes (see --help)"
  require_ranks "$ranks"
}

# The program as it is built, and built only where it is not there: no demonstration, this runs where users work.
find_trainer() {
  local built=$here/build/release/lorascale
  if [[ -n "${LORASCALE_PROGRAM:-}" ]]; then
    LORASCALE_PROGRAM=$(absolute "$LORASCALE_PROGRAM")
  elif [[ -x "$built" ]]; then
    LORASCALE_PROGRAM=$built
  fi
  pushd "$here" >/dev/null
  find_programs
  program=$(absolute "$program")
  popd >/dev/null
}

# Sets where things are, having checked them.
read_config() {
  local options=("${settings[@]}") found
  [[ -z "$label" ]] || options+=(--label)
  [[ -z "$tokenizer" ]] || options+=(--tokenizer "$tokenizer")
  prepare=("$python" "$here/scripts/prepare_folder.py" "$source" "${options[@]}")
  found=$("${prepare[@]}" --facts)
  mapfile -t found <<<"$found"
  config=${found[0]} run=${found[1]} data=${found[2]} name=${found[3]} pictures=${found[4]} captions=${found[5]}
  job=("$config" "${settings[@]}" --set "data.train=$data/train.h5")
  [[ -z "${found[6]-}" ]] || job+=(--set "${found[6]}")
  [[ "$config" == "$source" ]] || say "$config is what the trainer reads of $source"
}

# Wrong settings are told before labels and pictures are made, which takes a while. That the data are not there is no
# such error.
check_settings() {
  [[ ! -f "$data/train.h5" ]] || return 0
  local code=0 said
  said=$("$program" plan "${job[@]}" --headers-only --ranks "$ranks" 2>&1 >/dev/null) || code=$?
  ((code != 78)) || { echo "$said" >&2; fail 78 "$source does not fit, see above; nothing was prepared"; }
}

write_captions() {
  local code=0 options=(--model "$label") table=$pictures/metadata.csv before
  before=$(cksum "$table" 2>/dev/null || true)
  [[ -z "$prefix" ]] || options+=(--prefix "$prefix")
  "$python" "$here/scripts/auto_label.py" "$pictures" "${options[@]}" || code=$?
  ((code == 0)) || fail "$code" "the captions were not all made, for the reason above"
  [[ "$before" == "$(cksum "$table")" ]] ||
    say "read and mend $table: captions by a model are a start, and yours are better"
}

is_finished() {
  [[ "$(outcome)" == "done" && ${#settings[@]} == 0 ]] &&
    [[ ! "$source" -nt "$run/status.json" && ! "$data/train.h5" -nt "$run/status.json" ]]
}

train() {
  if is_finished; then
    say "training: $run is finished"
    return
  fi
  local code=0
  if [[ ! -e "$run/metrics.jsonl" ]]; then
    launch -n "$ranks" --run-dir "$run" cache "${job[@]}" || code=$?
    [[ "$code" == 0 || "$code" == 75 ]] || fail "$code" "what is frozen was not computed, for the reason above"
    judge_training "$code" "$run"
  fi
  say "training: $run, $ranks MPI rank(s); Ctrl-C saves, and the same command goes on from there"
  launch -n "$ranks" --run-dir "$run" train "${job[@]}" || code=$?
  judge_training "$code" "$run"
}

# Under the name that its user gave it; whole or not at all.
publish() {
  local file=$run/adapter/lora.safetensors result=$run/$name.safetensors temporary=$run/.$name.safetensors.$$.tmp
  if [[ ! -f "$file" ]]; then
    say "no LoRA was asked for: the result is in $run/model"
    return
  fi
  if ! cmp -s -- "$file" "$result"; then
    if ! { cp -- "$file" "$temporary" && sync -- "$temporary" && mv -fT -- "$temporary" "$result"; }; then
      rm -f -- "$temporary"
      fail 73 "$result could not be written, for the reason above; $file is the same"
    fi
  fi
  say "result: $result; a WebUI that has it in models/Lora takes it by <lora:$name:0.8> in a prompt"
}

read_words "$@"
python=$("$here/scripts/setup.sh" --print-python)
read_config
find_trainer
check_settings
[[ "$captions" != label ]] || write_captions
"${prepare[@]}"
if $plan; then
  exec "$program" plan "${job[@]}" --ranks "$ranks"
fi
train
"$python" "$here/scripts/report.py" "$run" --program "$program"
publish
