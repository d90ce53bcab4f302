"""cmake --install makes a tree that works from anywhere."""
import shutil
import subprocess

import pytest

from conftest_launch import ROOT, environment, expect_what_is_named, run_quickstart


@pytest.fixture(scope="module")
def tree(tmp_path_factory, program):
    build = ROOT / "build/release"
    if not (build / "cmake_install.cmake").exists():
        pytest.skip("there is no release build to install")
    first = tmp_path_factory.mktemp("first") / "prefix"
    subprocess.run(["cmake", "--install", build, "--prefix", first], check=True, capture_output=True, timeout=60)
    moved = tmp_path_factory.mktemp("second") / "a b"
    shutil.move(first, moved)  # nothing in it may remember where it was put first
    return moved


def run(*words, cwd, **more):
    # Without LORASCALE_PROGRAM, LD_LIBRARY_PATH and the like: the tree stands alone.
    variables = {key: value for key, value in environment("").items() if key != "LORASCALE_PROGRAM"}
    return subprocess.run(list(map(str, words)), cwd=cwd, env={**variables, **more}, capture_output=True, text=True,
                          timeout=60)


def test_version_and_plan_from_another_folder(tree, bench, tmp_path):
    result = run(tree / "bin/lorascale", "--version", cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.startswith("lorascale "), result.stderr
    result = run(tree / "bin/lorascale", "plan", bench.config("planned", 7), cwd=tmp_path)
    assert result.returncode == 0 and "7 steps" in result.stdout + result.stderr, result.stderr


def test_launcher_of_the_tree_finds_its_program(tree, bench, tmp_path):
    launcher = tree / "share/lorascale/launch/mpirun.sh"
    result = run(launcher, "--dry-run", "-n", 2, "train", "x.yaml", cwd=tmp_path)
    assert str(tree / "bin/lorascale").replace(" ", "\\ ") in result.stdout, result.stderr
    result = run(launcher, "-n", 2, "--profile", tree / "share/lorascale/cluster/single-node-nvlink.env", "train",
                 bench.config("installed", 2), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(bench.metrics("installed")) == 2


def test_tree_is_complete_and_clean(tree):
    share = tree / "share/lorascale"
    expect_what_is_named(share)
    for name in ("requirements.txt", "LICENSE", "README.md", "CHANGELOG.md"):
        assert (share / name).is_file(), name
    assert not list(tree.rglob("__pycache__")) and not list(tree.rglob("*.a"))


def test_quickstart_of_the_tree(tree, tmp_path):
    result = run_quickstart(tree / "share/lorascale", tmp_path)
    (line,) = [line.strip() for line in result.stdout.splitlines() if line.strip().startswith("build/release/lorascale inspect")]
    assert run("bash", "-c", line, cwd=tree / "share/lorascale").returncode == 0  # as printed


def test_prepare_text_of_the_tree_starts(tree, tmp_path):
    python = subprocess.run([ROOT / "scripts/setup.sh", "--print-python"], capture_output=True, text=True,
                            check=True).stdout.strip()
    result = run(python, tree / "share/lorascale/scripts/prepare_text.py", "--help", cwd=tmp_path)
    assert result.returncode == 0 and "--tokenizer" in result.stdout, result.stderr
