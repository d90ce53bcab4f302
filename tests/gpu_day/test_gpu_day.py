"""scripts/gpu_day.sh: all of it on a CPU with small sizes, on a machine without MPI, HDF5, compilers and network."""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from gpu_day import machine, results
from shell_of_day import ROOT, SCRIPT, sh

HERE = pathlib.Path(__file__).parent
LIMIT_MIB = 60


def bare_machine(folder):
    """The words before a command that is to run without MPI, HDF5, compilers and network; none where this machine
    allows no namespaces."""
    words = ["unshare", "--mount", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--"]
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        return []
    return [*words, sys.executable, str(HERE / "bare_machine.py"), str(folder), sys.executable]


def test_size(packed):
    assert packed.stat().st_size <= LIMIT_MIB << 20
    assert not [name for name in subprocess.run(["tar", "-tf", packed], capture_output=True, text=True).stdout.split()
                if "libtorch" in name or "libnccl" in name]


def test_the_bare_machine_lacks_what_it_should(tmp_path):
    words = bare_machine(tmp_path)
    if not words:
        pytest.skip("no mount namespaces here")
    look = "ldconfig -p | while read -r name _ _ path; do [ ! -e \"$path\" ] || echo $name; done; " \
           "command -v mpirun orted gcc cc ssh; python -c 'import h5py; h5py.File'; cat /proc/net/dev"
    said = sh(*words, "bash", "-c", look, PATH=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    found = said.stdout.split()
    assert "libc.so.6" in found
    for lacking in ("libmpi", "libhdf5", "libopen-", "libpmix", "libhwloc", "libyaml-cpp", "eth0"):
        assert not [word for word in found if word.startswith(lacking)], lacking
    for lacking in ("mpirun", "orted", "gcc", "cc", "ssh"):
        assert not [word for word in found if word.endswith("/" + lacking)], lacking
    assert "AttributeError" in said.stderr, said.stderr


@pytest.fixture(scope="module")
def day(package, tmp_path_factory):
    """The whole day, as it will run; {part: its JSON}."""
    folder = tmp_path_factory.mktemp("day")
    (folder / "hidden").mkdir()
    words = bare_machine(folder / "hidden")
    begin = time.monotonic()
    done = sh(*words, package / "scripts/gpu_day.sh", "run", "--stand-in", "--output", folder / "out", "--work", folder,
              timeout=900, PATH="/usr/bin:/bin")
    print(f"{time.monotonic() - begin:.0f} s", done.stdout, done.stderr[-3000:])
    found = json.loads((folder / "out/gpu-day.json").read_text())
    found["code"], found["said"], found["folder"] = done.returncode, done.stdout + done.stderr, folder
    return found


@pytest.mark.parametrize("number", range(1, 8))
def test_every_part_passes_on_a_cpu(day, number):
    part = next(part for part in day["parts"] if part["part"] == number)
    failed = [check for check in part["checks"] if check["verdict"] == results.FAIL]
    assert not failed and part["verdict"] == results.PASS, failed
    assert all(check["bound"] for check in part["checks"] if check["verdict"] == results.PASS)


def test_the_day_ends_well(day):
    assert day["code"] == 0, day["said"]
    assert sorted(path.name for path in (day["folder"] / "out").iterdir()) == ["gpu-day.json", "gpu-day.log", "gpu-day.md"]
    assert not list(day["folder"].glob("gpu-day-*")), "the scratch folder is still there"
    text = (day["folder"] / "out/gpu-day.md").read_text()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    assert "| tiny | 256 | 0.05 | compiled |" in text


def test_speed_has_all_sides(day):
    (table,) = day["parts"][6]["tables"]
    sides = {(row[1], row[2], row[3]) for row in table["rows"]}
    assert sides == {(row, dropout, side) for row, dropout in (("128", 0.0), ("256", 0.05))
                     for side in ("lorascale", "eager", "compiled")} | {("128", 0.0, "lorascale, exact")}


def test_a_broken_program_fails_its_parts_and_the_next_ones_run(package, tmp_path):
    done = sh(SCRIPT, "run", "--stand-in", "--package", package, "--output", tmp_path / "out", "--work", tmp_path,
              "--parts", "1,3,4", "--program", "/bin/false")
    found = json.loads((tmp_path / "out/gpu-day.json").read_text())
    assert done.returncode == 1
    assert [part["verdict"] for part in found["parts"]] == [results.FAIL] * 3
    again = sh(SCRIPT, "run", "--stand-in", "--package", package, "--output", tmp_path / "out")
    assert again.returncode == 73 and "another day" in again.stderr


def test_other_numbers_are_noticed(package, tmp_path):
    """The same day against goldens that are off by 1e-3."""
    subprocess.run(["cp", "-r", package, tmp_path / "package"], check=True)
    path = tmp_path / "package/material/golden/curve-packed-rows/lines.json"
    lines = json.loads(path.read_text())
    lines[-1]["loss"] *= 1.001
    path.write_text(json.dumps(lines))
    done = sh(SCRIPT, "run", "--stand-in", "--package", tmp_path / "package", "--output", tmp_path / "out", "--work",
              tmp_path, "--parts", "2", timeout=120)
    (part,) = json.loads((tmp_path / "out/gpu-day.json").read_text())["parts"]
    failed = [check["name"] for check in part["checks"] if check["verdict"] == results.FAIL]
    assert done.returncode == 1 and failed == ["packed rows, fp32: losses of 5 updates, relative"]


def test_a_request_to_end_leaves_nothing(packed, tmp_path):
    """Of the packed file, which is unpacked for the time of the day."""
    process = subprocess.Popen([SCRIPT, "run", "--stand-in", "--package", packed, "--output", tmp_path / "out", "--work",
                                tmp_path, "--parts", "3"], env={**os.environ, "LORASCALE_PYTHON": sys.executable,
                                                                "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    begin = time.monotonic()
    while not list(tmp_path.glob("gpu-day-*/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() - begin < 60
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=20) == 143
    left = [path.name for path in tmp_path.iterdir() if not path.name.startswith("ompi.")]  # of a killed rank
    assert left == ["out"]
    marks = subprocess.run(["grep", "-lzs", "^LORASCALE_GPU_DAY=%d-" % process.pid,
                            *map(str, pathlib.Path("/proc").glob("[0-9]*/environ"))], capture_output=True, text=True)
    assert marks.stdout == ""


@pytest.mark.parametrize("words, code, said", [
    (["--parts", "8"], 64, "numbers from 1 to 7"),
    (["--quick"], 64, "unrecognized arguments"),
    (["--package", "/nowhere"], 64, "/nowhere is missing"),
    (["--package", str(ROOT)], 69, "no GPU here"),
    (["--stand-in", "--package", str(SCRIPT)], 65, "make it anew"),
])
def test_wrong_arguments_and_no_card(tmp_path, words, code, said):
    if code == 69 and machine.smi("name"):
        pytest.skip("there is a GPU")
    words = [*words, *([] if "--package" in words else ["--package", str(ROOT)])]
    result = sh(SCRIPT, "run", "--output", tmp_path / "out", "--work", tmp_path, *words)
    assert result.returncode == code and said in result.stderr, result.stderr
    assert not list(tmp_path.glob("gpu-day-*"))
