"""A tiny model and data set, and ways to start the launchers on them."""
import os
import pathlib
import re
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


# What README, docs, scripts and messages name that only a checkout can do -> why.
OF_A_CHECKOUT = {
    "scripts/build.sh": "builds the sources",
    "scripts/test.sh": "builds and runs tests/",
    "scripts/lint.sh": "reads the sources",
    "scripts/bundle.sh": "packs a build",
    "scripts/mutate.py": "changes the sources",
}


def named_places() -> dict:
    """Files and folders that a package is expected to have, because something of it names them -> who does."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "configs").glob("*.yaml"),
             *(ROOT / "scripts").rglob("*.sh"), *(ROOT / "scripts").rglob("*.py"), *(ROOT / "launch").glob("*"),
             *(ROOT / "src").rglob("*.cpp")]
    found = {}
    for page in pages:
        for name in re.findall(r"(?<![\w/.$}-])(?:scripts|launch|configs|cluster|docs)/[\w./-]*\w", page.read_text()):
            if (ROOT / name).exists():  # tests/docs sees to names that lead nowhere
                found.setdefault(name, page.relative_to(ROOT))
        if "build/release/lorascale" in page.read_text():
            found["build/release/lorascale"] = page.relative_to(ROOT)
    return {name: page for name, page in found.items() if name not in OF_A_CHECKOUT}


def expect_what_is_named(root: pathlib.Path):
    names = named_places()
    assert {"scripts/report.py", "scripts/encode_prompt.py", "scripts/quickstart.sh", "scripts/demo/base-model",
            "build/release/lorascale"} <= set(names)
    missing = [f"{name} (named in {page})" for name, page in names.items() if not (root / name).exists()]
    assert not missing
    for name in OF_A_CHECKOUT:
        assert not (root / name).exists(), name


def run_quickstart(root: pathlib.Path, folder: pathlib.Path, **variables) -> subprocess.CompletedProcess:
    """The README's first command, from a package, with a text of its own and a few updates."""
    settings = {"budget": "2 steps", "batch.global": 4, "batch.micro": 2, "data.sequence_length": 64,
                "evaluate.max_samples": 4, "sample.max_tokens": 4, "run.threads": 1}
    command = [root / "scripts/quickstart.sh", "--text", ROOT / "LICENSE", "--output", folder / "run", "--data",
               folder / "data"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    variables["PYTHONDONTWRITEBYTECODE"] = "1"  # other tests look at the package, too
    names = ("PATH", "HOME", "LORASCALE_HOME", "XDG_CACHE_HOME")
    result = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=200,
                            env={**{name: os.environ[name] for name in names if name in os.environ}, **variables})
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    assert "building" not in result.stdout and (folder / "run/report.html").exists()
    return result
