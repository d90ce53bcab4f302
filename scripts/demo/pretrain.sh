#!/usr/bin/env bash
# Makes scripts/demo/base-model again, from the corpora up (some forty minutes on two cores). The result is in git;
# nobody needs to run this to use lorascale.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=$("$here/scripts/setup.sh" --print-python)
cd "$here"
mkdir -p data/demo runs
"$python" scripts/demo/corpora.py --base data/demo/base.txt
"$python" scripts/prepare_text.py data/demo/base.txt --tokenizer bytes --text-split formfeed --force \
  --output data/demo/base-train.h5 --validation data/demo/base-validation.h5 --validation-fraction 0.02
"$python" scripts/demo/make_random_model.py runs/demo-random
build/release/lorascale train scripts/demo/pretrain.yaml
# The weights in bf16, as the repository keeps them.
"$python" - runs/demo-base/model scripts/demo/base-model <<'PYTHON'
import sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
model.save_pretrained(sys.argv[2])
PYTHON
