"""cluster/*.env and the reader of launch/common.sh: every line has its reason, nothing in a profile is executed."""
import re

import pytest

from conftest_launch import ROOT, launch

PROFILES = sorted((ROOT / "cluster").glob("*.env"))


def settings_after(tmp_path, text, **more):
    path = tmp_path / "p.env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    script = tmp_path / "show.sh"
    script.write_text("#!/bin/sh\nenv\n")
    script.chmod(0o755)
    result = launch(script, "-n", 1, "--profile", path, "train", "x", **more)
    return result, dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)


def test_there_are_profiles_for_the_usual_machines():
    assert {path.stem for path in PROFILES} == {"single-node-nvlink", "single-node-pcie", "infiniband", "ethernet",
                                                "shared-gpu-test"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_setting_has_its_reason_and_reaches_the_rank(tmp_path, path):
    settings = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert settings
    expected = {}
    for line in settings:
        match = re.fullmatch(r"([A-Z][A-Za-z0-9_]*)=(\S+)\s+# \S.{10,}", line)
        assert match, line
        expected[match[1]] = match[2]
    _, seen = settings_after(tmp_path, path.read_bytes())
    assert {key: seen.get(key) for key in expected} == expected


def test_the_environment_wins(tmp_path):
    _, seen = settings_after(tmp_path, "NCCL_DEBUG=WARN\nNCCL_ALGO=Tree\n", NCCL_DEBUG="INFO", NCCL_ALGO="")
    assert seen["NCCL_DEBUG"] == "INFO" and seen["NCCL_ALGO"] == ""


def test_blank_lines_comments_and_a_missing_last_newline(tmp_path):
    result, seen = settings_after(tmp_path, "\n  # why\n#NCCL_A=1\nNCCL_B=^lo,x   # because\nOMP_PROC_BIND=false")
    assert result.returncode == 0, result.stderr
    assert seen["NCCL_B"] == "^lo,x" and seen["OMP_PROC_BIND"] == "false" and "NCCL_A" not in seen


HOSTILE = {
    "command": ("touch MARK\n", "not KEY=value"),
    "substitution": ("NCCL_DEBUG=$(touch MARK)\n", "not KEY=value"),
    "backticks": ("NCCL_DEBUG=`touch MARK`\n", "not KEY=value"),
    "second command": ("NCCL_DEBUG=WARN; touch MARK\n", "not KEY=value"),
    "variable": ("NCCL_DEBUG=$HOME\n", "not KEY=value"),
    "quotes": ("NCCL_DEBUG='WARN'\n", "not KEY=value"),
    "backslash": ("NCCL_DEBUG=WARN\\\ntouch MARK\n", "not KEY=value"),
    "spaces": ("NCCL_DEBUG = WARN\n", "not KEY=value"),
    "export": ("export NCCL_DEBUG=WARN\n", "not KEY=value"),
    "subscript": ("NCCL_X[$(touch MARK)]=1\n", "not KEY=value"),
    "append": ("NCCL_DEBUG+=WARN\n", "not KEY=value"),
    "no value": ("NCCL_DEBUG\n", "not KEY=value"),
    "path": ("PATH=/tmp\n", "PATH is no setting of a profile"),
    "preload": ("LD_PRELOAD=/tmp/x.so\n", "LD_PRELOAD is no setting"),
    "bash start file": ("BASH_ENV=/tmp/x\n", "BASH_ENV is no setting"),
    "program": ("LORASCALE_PROGRAM=/tmp/x\n", "LORASCALE_PROGRAM is no setting"),
    "lower case": ("nccl_debug=WARN\n", "nccl_debug is no setting"),
    "plugin": ("NCCL_NET_PLUGIN=/tmp/x.so\n", "names code to load"),
    "tuner plugin": ("NCCL_TUNER_PLUGIN=/tmp/x.so\n", "names code to load"),
    "configuration of NCCL": ("NCCL_CONF_FILE=/tmp/x\n", "names code to load"),
    "launch agent": ("OMPI_MCA_plm_rsh_agent=/tmp/x\n", "names code to load"),
    "component path": ("OMPI_MCA_mca_base_component_path=/tmp\n", "names code to load"),
    "twice": ("NCCL_DEBUG=WARN\nNCCL_DEBUG=INFO\n", "p.env:2: NCCL_DEBUG is set twice"),
    "Windows line ends": ("NCCL_DEBUG=WARN\r\n", "Windows line ends"),
    "NUL": (b"NCCL_DEBUG=WA\0RN\n", "no plain ASCII"),
    "not ASCII": ("NCCL_DEBUG=WÄRN\n", "no plain ASCII"),
    "escape sequence": ("# \x1b[2J\nNCCL_DEBUG=WARN\n", "no plain ASCII"),
    "huge": ("#" * 70000, "larger than 64 KiB"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_line_is_refused_and_not_executed(tmp_path, case):
    text, words = HOSTILE[case]
    mark = tmp_path / "mark"
    text = text.replace("MARK", str(mark)) if isinstance(text, str) else text
    result, seen = settings_after(tmp_path, text)
    assert result.returncode == 65 and words in result.stderr, result.stderr
    assert result.stderr.startswith("mpirun.sh: ") and "p.env" in result.stderr and result.stderr.count("\n") == 1
    assert not mark.exists() and not seen


def test_missing_profile(tmp_path):
    result = launch("/bin/true", "-n", 1, "--profile", tmp_path / "none.env", "train", "x")
    assert result.returncode == 65 and "no such profile" in result.stderr
    result = launch("/bin/true", "-n", 1, "--profile", tmp_path, "train", "x")
    assert result.returncode == 65 and "no such profile" in result.stderr
