"""What scripts/setup.sh says where it may not install: one list, nothing done, and no second question."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "scripts" / "setup.sh"


def stub(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def start(tmp_path, *stubs, arguments=()):
    """setup.sh as a user who is not root, with some programs replaced."""
    tools = tmp_path / "tools"
    tools.mkdir()
    tools.chmod(0o755)
    tmp_path.chmod(0o777)
    for name, script in stubs:
        stub(tools, name, script)
    environment = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path), "LORASCALE_HOME": str(tmp_path)}
    script = SETUP.read_bytes()
    # The checkout may be closed to other users: they get a copy of the three files that matter.
    copy = tmp_path / "checkout"
    (copy / "scripts").mkdir(parents=True)
    (copy / "scripts" / "setup.sh").write_bytes(script)
    for name in ("scripts/debian-packages.txt", "requirements.txt"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    return subprocess.run(
        [*become, "bash", str(copy / "scripts" / "setup.sh"), *arguments], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60, cwd="/",
    )  # fmt: skip


INSTALLED = "install ok installed"
MISSING_TWO = f'for last; do :; done; case "$last" in cmake|libhdf5-dev) exit 1;; *) printf "{INSTALLED}";; esac'


def open_parents(path):
    """pytest makes its folders for the owner alone; another user must be able to walk through them."""
    for parent in path.parents:
        if parent == Path("/tmp") or parent == Path("/"):
            break
        if parent.stat().st_uid == os.geteuid():
            parent.chmod(parent.stat().st_mode | 0o055)


def test_without_root_names_everything_that_is_missing_at_once(tmp_path):
    open_parents(tmp_path)
    result = start(tmp_path, ("dpkg-query", MISSING_TWO), ("sudo", "exit 1"), ("apt-get", "touch $HOME/called"))
    assert result.returncode == 69, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 2 and lines[1].split()[-4:] == ["apt-get", "install", "cmake", "libhdf5-dev"]
    assert not (tmp_path / "called").exists() and not list(tmp_path.glob("python-*"))


def test_failing_apt_shows_its_own_words(tmp_path):
    open_parents(tmp_path)
    result = start(
        tmp_path,
        ("dpkg-query", MISSING_TWO),
        ("sudo", 'case "$1" in -*) exit 0;; *) exec "$@";; esac'),
        ("apt-get", 'echo "E: Unable to locate package cmake" >&2; exit 100'),
    )
    assert result.returncode == 69
    assert "E: Unable to locate package cmake" in result.stderr and "apt-get failed" in result.stderr
    assert not list(tmp_path.glob("python-*"))


def test_unknown_argument(tmp_path):
    open_parents(tmp_path)
    result = start(tmp_path, arguments=("--what",))
    assert (result.returncode, result.stderr.count("\n")) == (64, 1)
