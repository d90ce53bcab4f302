"""Packages as folders, with an apt-get that has its packages in a folder here."""

import shutil
import subprocess

import deb_packages
import pytest

APT = """#!/bin/sh
echo "$*" >> {log}
while [ "$1" != download ]; do shift; done
shift
for name; do
  [ -e {store}/$name.deb ] || {{ echo "E: Unable to locate package $name" >&2; exit 100; }}
done
for name; do cp {store}/$name.deb ${{name}}_1%3a2_all.deb; done
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder of three packages."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("there is no dpkg-deb here")
    folder, tools = tmp_path / "store", tmp_path / "tools"
    tools.mkdir()
    for name in ("one", "two", "three"):
        tree = tmp_path / "trees" / name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
        )
        (tree / "file").write_text(name)
        folder.mkdir(exist_ok=True)
        subprocess.run(["dpkg-deb", "-b", tree, folder / f"{name}.deb"], check=True, capture_output=True)
    (tools / "apt-get").write_text(APT.format(log=tmp_path / "log", store=folder))
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return folder


def calls(tmp_path):
    log = tmp_path / "log"
    return [line.partition("download ")[2] for line in log.read_text().splitlines()] if log.exists() else []


def test_all_at_once(store, tmp_path):
    cache = tmp_path / "cache"
    roots, failed, size = deb_packages.unpack_all(["one", "two", "three"], cache)
    assert list(roots) == ["one", "two", "three"]
    assert all((root / "file").read_text() == name for name, root in roots.items())
    assert failed == {} and size == sum(file.stat().st_size for file in store.iterdir())
    assert sorted(path.name for path in cache.iterdir()) == ["one", "three", "two"]
    assert deb_packages.unpack_all(["two", "one"], cache)[2] == 0
    assert deb_packages.unpack("two", cache) == cache / "two"
    assert calls(tmp_path) == ["one two three"]  # once


def test_one_that_is_gone_does_not_cost_the_others(store, tmp_path):
    roots, failed, _ = deb_packages.unpack_all(["one", "gone", "two"], tmp_path / "cache")
    assert list(roots) == ["one", "two"]
    assert {name: str(error) for name, error in failed.items()} == {"gone": "E: Unable to locate package gone"}
    assert calls(tmp_path) == ["one gone two", "one", "gone", "two"]


def test_what_came_before_a_damaged_one_is_not_fetched_again(store, tmp_path):
    (store / "two.deb").write_bytes(b"no archive")
    roots, failed, _ = deb_packages.unpack_all(["one", "two", "three"], tmp_path / "cache")
    assert list(roots) == ["one", "three"] and list(failed) == ["two"]
    assert calls(tmp_path) == ["one two three", "two", "three"]


def test_batches(store, tmp_path, monkeypatch):
    monkeypatch.setattr(deb_packages, "AT_ONCE", 2)
    assert len(deb_packages.unpack_all(["one", "two", "three"], tmp_path / "cache")[0]) == 3
    assert calls(tmp_path) == ["one two", "three"]


def test_no_apt_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(deb_packages.PackageError, match="there is no apt-get on this machine"):
        deb_packages.unpack("one", tmp_path / "cache")


def test_a_damaged_package_leaves_nothing(store, tmp_path):
    (store / "one.deb").write_bytes(b"no archive")
    _, failed, _ = deb_packages.unpack_all(["one"], tmp_path / "cache")
    assert list(failed) == ["one"] and list((tmp_path / "cache").iterdir()) == []
