"""Debian packages as folders: fetched by `apt-get download` and unpacked by `dpkg -x` into a cache. Nothing is
installed, no root is needed."""

import os
import subprocess
import tempfile
from pathlib import Path

AT_ONCE = 40  # packages of one download


class PackageError(Exception):
    """Why a package is not to be had, on one line."""


def cache_folder(name):
    """Where a kind of package is kept, outside the checkout."""
    home = os.environ.get("LORASCALE_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lorascale"
    )
    return Path(home) / name


def unpack(package, cache):
    """The root folder of `package` in the cache; downloads and unpacks it once."""
    root = cache / package
    if not root.is_dir():
        _fetch([package], cache)
    return root


def unpack_all(packages, cache):
    """({package: its root folder}, {package: PackageError}, bytes fetched, without those of batches in which one
    failed). Many at a time: apt-get takes most of a second to begin."""
    missing = [package for package in packages if not (cache / package).is_dir()]
    failed, size = {}, 0
    for first in range(0, len(missing), AT_ONCE):
        batch = missing[first : first + AT_ONCE]
        try:
            size += _fetch(batch, cache)
        except PackageError:  # of one of them: those behind it did not come either
            for package in batch:
                if (cache / package).is_dir():  # was before it
                    continue
                try:
                    size += _fetch([package], cache)
                except PackageError as error:
                    failed[package] = error
    return {package: cache / package for package in packages if package not in failed}, failed, size


def _fetch(packages, cache):
    """Downloads and unpacks packages; the bytes that they had. What is there already is left alone."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{packages[0]}-") as work:
        # As root apt would drop to user _apt, who may not write here, and would warn.
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        run_tool(["apt-get", *sandbox, "download", *packages], work)
        archives = {path.name.partition("_")[0]: path for path in Path(work).glob("*.deb")}
        size = sum(path.stat().st_size for path in archives.values())
        for package in packages:
            if package not in archives:
                raise PackageError("apt-get download left no file")
            tree = Path(work) / f"tree of {package}"
            run_tool(["dpkg", "-x", archives[package].name, tree.name], work)
            if not (cache / package).is_dir():
                tree.rename(cache / package)
    return size


def run_tool(command, folder):
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise PackageError(f"there is no {command[0]} on this machine") from error
    if done.returncode:
        raise PackageError(first_line(done.stderr))


def first_line(text):
    """The line of a tool's output that says why it failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines or ["no reason given"])[0]
