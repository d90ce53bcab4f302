"""What is said where a GPU cannot be used: no driver, one that refuses, one that is too old for this libtorch."""
import os
import pathlib
import subprocess

import pytest
from harness import Workspace, environment, execute, expect_refusal

BAD_CONFIG = 78
DRIVER = pathlib.Path(__file__).with_name("driver.c")


@pytest.fixture(scope="module")
def space(program, tmp_path_factory):
    return Workspace.create(tmp_path_factory.mktemp("device"), program)


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    """A folder for LD_LIBRARY_PATH with a libcuda of our own."""
    folder = tmp_path_factory.mktemp("driver")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", DRIVER], check=True)
    return folder


def plan(space, device, **variables):
    return execute(space.command("plan", "--set", f"run.device={device}"), env=environment(**variables))


def with_driver(drivers, **answers):
    path = ":".join(filter(None, [str(drivers), os.environ.get("LD_LIBRARY_PATH")]))
    return {"LD_LIBRARY_PATH": path, **{f"DRIVER_{name}": str(value) for name, value in answers.items()}}


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="this machine has a driver")
def test_without_a_driver_cuda_is_refused_with_the_loaders_reason(space):
    space.write_config()
    expect_refusal(plan(space, "cuda"), BAD_CONFIG, ["run.device is cuda", "libcuda.so.1", "run.device: cpu"])


def test_a_driver_that_is_too_old_is_named(space, drivers):
    space.write_config()
    old = with_driver(drivers, VERSION=9020, GPUS=2)
    expect_refusal(plan(space, "cuda", **old), BAD_CONFIG, ["the driver is too old", "CUDA 9.2", "update the driver"])
    fallen_back = plan(space, "auto", **old)
    assert fallen_back.code == 0, fallen_back.stderr
    said = fallen_back.stdout + fallen_back.stderr
    assert "training on the CPU, because on" in said and "the driver is too old" in said


def test_a_driver_that_shows_nothing_is_named(space, drivers):
    space.write_config()
    refusing = with_driver(drivers, RESULT=100, VERSION=13000)
    expect_refusal(plan(space, "cuda", **refusing), BAD_CONFIG, ["CUDA_ERROR_NO_DEVICE", "--gpus"])
    hidden = {**with_driver(drivers, VERSION=13000, GPUS=1), "CUDA_VISIBLE_DEVICES": ""}
    expect_refusal(plan(space, "cuda", **hidden), BAD_CONFIG, ["CUDA_VISIBLE_DEVICES=''", "hides every GPU"])
