"""Instructions of one update of a tiny model, against those on record: a slow-down is seen on noisy machines, too. They are
counted by callgrind, which shows every program the same CPU (AVX2), so that a count is of the build, not of the machine; the
start of the program is left out as the difference of a short and a longer run. fp32 alone: without AVX-512, bf16 products
are libtorch's slow ones, and nearly all that would be counted.

    scripts/setup.sh --print-python | xargs -I{} {} tests/train/test_instructions.py    # puts today's counts on record
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

import pytest

HERE = pathlib.Path(__file__).resolve().parent
RECORD = HERE / "instructions.json"
SLACK = 0.03
SHORT, LONG = 3, 11  # updates


def collected(program, config, steps):
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={config.parent / 'callgrind.out'}", program, "train",
               str(config), "--set", f"run.output_dir={config.parent / str(steps)}", "--set", f"budget={steps} steps"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-3000:]
    # Of the process itself, which ends last; it starts others.
    return int(re.findall(r"Collected : (\d+)", result.stderr)[-1])


def instructions_of_an_update(program, folder):
    from reference import make_documents, make_model, write_config, write_dataset
    make_model("llama").save_pretrained(folder / "base")
    write_dataset(folder / "train.h5", make_documents(LONG * 8, 48, 49))
    settings = {"run": {"threads": 1, "device": "cpu"}, "model": {"path": str(folder / "base"), "dtype": "fp32"},
                "adapter": {"rank": 8, "targets": "all-linear"},
                "data": {"train": str(folder / "train.h5"), "packing": False, "sequence_length": 64},
                "batch": {"global": 8, "micro": 4}, "checkpoint": {"every": "1000 steps"}}
    write_config(folder / "run.yaml", settings)
    short, longer = (collected(program, folder / "run.yaml", steps) for steps in (SHORT, LONG))
    return (longer - short) // (LONG - SHORT)


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind counts instructions, and is not installed")
def test_an_update_takes_no_more_instructions_than_on_record(program, tmp_path):
    recorded = json.loads(RECORD.read_text())["update of a tiny model, fp32"]
    counted = instructions_of_an_update(program, tmp_path)
    words = f"{counted:,} instructions an update, {recorded:,} on record ({counted / recorded - 1:+.1%})"
    assert counted <= recorded * (1 + SLACK), words
    if counted < recorded * (1 - SLACK):
        warnings.warn(f"{words}: put the gain on record", stacklevel=1)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent / "parity"))
    built = HERE.parents[1] / "build/release/lorascale"
    with tempfile.TemporaryDirectory() as scratch:
        counts = {"update of a tiny model, fp32": instructions_of_an_update(built, pathlib.Path(scratch))}
    RECORD.write_text(json.dumps(counts, indent=2) + "\n")
    print(counts)
