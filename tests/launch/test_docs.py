"""Every command of docs/running.md runs, in order, as it stands there."""
import os
import re
import shutil
import subprocess

import pytest
import torch
import yaml

from conftest_launch import ROOT, environment

BLOCKS = re.findall(r"^```(sh.*)\n((?:.*\n)*?)```", (ROOT / "docs/running.md").read_text(), re.M)
HAVE_SLURM = all(shutil.which(name) for name in ("slurmctld", "slurmd", "munged", "sbatch"))


@pytest.fixture(scope="module")
def place(bench, tmp_path_factory):
    """A folder like a checkout, with a small run.yaml."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("launch", "cluster", "build", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    settings = yaml.safe_load(bench.config("docs", 4).read_text())
    settings["run"]["output_dir"] = "runs/demo"
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    (folder / "hosts").write_text("localhost slots=2\n")
    return folder


@pytest.fixture(scope="module")
def variables(program):
    variables = environment(program, LORASCALE_TORCH_LIB=os.path.join(os.path.dirname(torch.__file__), "lib"))
    del variables["LORASCALE_PROGRAM"]  # the commands find the program by themselves
    return variables


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    bed = tmp_path_factory.mktemp("docs-slurm") / "bed"
    subprocess.run([ROOT / "cluster/slurm_testbed.sh", "start", bed], check=True, timeout=60)
    yield {"SLURM_CONF": str(bed / "slurm.conf")}
    subprocess.run([ROOT / "cluster/slurm_testbed.sh", "stop", bed], check=True, timeout=60)


def run(text, place, variables):
    result = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=place, env=variables, capture_output=True,
                            text=True, timeout=150)
    logs = "".join(path.read_text() for path in place.glob("lorascale-*.log"))
    assert result.returncode == 0, result.stdout + result.stderr + logs


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "sh"],
                         ids=lambda text: text.splitlines()[0][:40])
def test_command(place, variables, text):
    run(text, place, variables)


@pytest.mark.skipif(not HAVE_SLURM, reason="SLURM is not installed (scripts/debian-packages-slurm.txt)")
@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "sh slurm"],
                         ids=lambda text: text.splitlines()[0][:40])
def test_slurm_command(place, variables, cluster, text):
    run(text, place, {**variables, **cluster})


def test_results_are_there(place):
    for name in ("demo", "nvlink", "hosts", "retried", "installed", "bundled"):
        assert (place / "runs" / name / "adapter/adapter_model.safetensors").exists(), name


def test_every_profile_is_in_the_table():
    text = (ROOT / "docs/running.md").read_text()
    for path in ROOT.glob("cluster/*.env"):
        assert f"| `cluster/{path.name}` |" in text


def test_exit_codes_are_those_of_the_program():
    header = (ROOT / "src/base/error.hpp").read_text()
    codes = {int(code) for code in re.findall(r"^  k\w+ = (\d+),", header, re.M)}
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "docs/running.md").read_text(), re.M)}
    assert codes <= documented
