"""Runs the lorascale program beside transformers + peft. The program is found through LORASCALE_PROGRAM, or at
build/release/lorascale."""
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
for shared in ("parity", "faults"):  # reference.py and harness.py
    sys.path.insert(0, str(ROOT / "tests" / shared))


@pytest.fixture(scope="session")
def program() -> str:
    path = pathlib.Path(os.environ.get("LORASCALE_PROGRAM", ROOT / "build/release/lorascale"))
    if not path.exists():
        pytest.fail(f"{path} is missing: run scripts/build.sh first")
    return str(path)
