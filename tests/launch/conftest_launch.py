"""A tiny model and data set, and ways to start the launchers on them."""
import os
import pathlib
import subprocess
import time

import pytest

from reference import make_documents, make_model, metrics, write_config, write_dataset

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Bench:
    """A folder with a model, a data set and configurations."""

    def __init__(self, folder: pathlib.Path, program: str):
        self.folder, self.program = folder, program
        make_model("llama").save_pretrained(folder / "base")
        write_dataset(folder / "train.h5", make_documents(50, 4, 60))
        write_dataset(folder / "validation.h5", make_documents(500, 4, 60))

    def config(self, name: str, steps: int, every: int = 3, slow: bool = False) -> pathlib.Path:
        """`slow`: some tenths of a second per update, and the same curve."""
        path = self.folder / f"{name}.yaml"
        validation = {"validation": str(self.folder / "validation.h5")} if slow else {}
        write_config(path, {
            "run": {"output_dir": str(self.folder / name), "threads": 1, "deadline_seconds": 20},
            "model": {"path": str(self.folder / "base"), "dtype": "fp32"},
            "adapter": {"rank": 4, "alpha": 8, "targets": "all-linear"},
            "data": {"train": str(self.folder / "train.h5"), "packing": False, "sequence_length": 64,
                     **validation},
            **({"evaluate": {"every": "1 steps"}} if slow else {}),
            "batch": {"global": 8, "micro": 2},
            "optimizer": {"lr": 3e-3},
            "checkpoint": {"every": f"{every} steps", "keep": 2},
            "budget": f"{steps} steps",
        })
        return path

    def updates(self, name: str) -> int:
        path = self.folder / name / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def metrics(self, name: str):
        return metrics(self.folder / name)


@pytest.fixture(scope="session")
def bench(tmp_path_factory, program):
    return Bench(tmp_path_factory.mktemp("launch"), program)


def environment(program: str, **more: str) -> dict:
    names = ("PATH", "HOME", "LANG", "TMPDIR")  # nothing of the caller's NCCL_, OMPI_ or SLURM_ settings
    return {**{name: os.environ[name] for name in names if name in os.environ}, "OMP_NUM_THREADS": "1",
            "LORASCALE_PROGRAM": str(program), **more}


def launch(program, *arguments, timeout=60, **more):
    return subprocess.run([str(ROOT / "launch/mpirun.sh"), *map(str, arguments)], env=environment(program, **more),
                          capture_output=True, text=True, timeout=timeout)


def start(program, *arguments, **more):
    return subprocess.Popen([str(ROOT / "launch/mpirun.sh"), *map(str, arguments)], env=environment(program, **more),
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds=60, what="what was waited for"):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.01)
