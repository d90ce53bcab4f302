"""Runs scripts/gpu_day.sh with the Python of the tests."""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/gpu_day.sh"


def sh(*words, timeout=60, **environment):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, "LORASCALE_PYTHON": sys.executable, **environment})
