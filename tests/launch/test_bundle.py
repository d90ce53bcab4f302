"""scripts/bundle.sh: the tarball unpacks anywhere, brings its libraries, and says what a machine lacks."""
import hashlib
import os
import pathlib
import re
import subprocess

import pytest
import torch

from conftest_launch import ROOT, expect_what_is_named, run_quickstart

TORCH_LIB = pathlib.Path(torch.__file__).parent / "lib"
VERSION = torch.__version__.split("+")[0]
GLIBC = r"(ld-linux.*|lib(c|m|mvec|dl|pthread|rt|util|resolv))\.so.*"


def pack(output, *arguments):
    return subprocess.run([ROOT / "scripts/bundle.sh", "--output", output, *arguments], capture_output=True, text=True,
                          timeout=200)


def unpack(tarball, folder):
    subprocess.run(["tar", "-C", folder, "-xf", tarball], check=True)
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def tarball(tmp_path_factory, program):
    if not (ROOT / "build/release/cmake_install.cmake").exists():
        pytest.skip("there is no release build to pack")
    path = tmp_path_factory.mktemp("pack") / "lorascale.tar.gz"
    result = pack(path)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="module")
def bundle(tarball, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked") / "with space"
    folder.mkdir()
    return unpack(tarball, folder)


@pytest.fixture(scope="module")
def with_mpi(tmp_path_factory, program, tarball):
    path = tmp_path_factory.mktemp("pack") / "lorascale.tar.gz"
    result = pack(path, "--mpi", "copy")
    assert result.returncode == 0, result.stderr
    return unpack(path, tmp_path_factory.mktemp("with_mpi"))


def run(*words, cwd="/", **variables):
    """In an empty environment but for the folder of libtorch."""
    variables = {"LORASCALE_TORCH_LIB": str(TORCH_LIB), **variables}
    return subprocess.run(list(map(str, words)), env={key: value for key, value in variables.items() if value is not None},
                          cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("libraries", [None, "all"])
def test_version_and_two_updates(bundle, bench, libraries):
    result = run(bundle / "bin/lorascale", "--version", LORASCALE_BUNDLE_LIBS=libraries)
    assert result.returncode == 0 and result.stdout.startswith("lorascale "), result.stderr
    name = f"bundle-{libraries}"
    result = run(bundle / "bin/lorascale", "train", bench.config(name, 2), LORASCALE_BUNDLE_LIBS=libraries)
    assert result.returncode == 0, result.stderr
    assert len(bench.metrics(name)) == 2


def test_what_docs_and_messages_name_is_there(bundle):
    expect_what_is_named(bundle)


def test_commands_of_the_docs_work_as_printed(bundle, tmp_path):
    for program in (bundle / "build/release/lorascale", tmp_path / "a link"):
        if not program.exists():
            program.symlink_to(bundle / "bin/lorascale")
        result = run(program, "--version")
        assert result.returncode == 0 and result.stdout.startswith("lorascale "), result.stderr


def test_quickstart(bundle, tmp_path):
    result = run_quickstart(bundle, tmp_path)
    assert "validation" in result.stdout


def test_two_ranks_through_its_launcher(bundle, bench):
    result = run(bundle / "launch/mpirun.sh", "-n", 2, "train", bench.config("bundle-ranks", 2), PATH=os.environ["PATH"])
    assert result.returncode == 0, result.stderr
    assert bench.metrics("bundle-ranks")[-1]["world_size"] == 2


def test_mpi_of_its_own(with_mpi, bench):
    result = run(with_mpi / "launch/mpirun.sh", "-n", 2, "train", bench.config("bundle-mpi", 2), PATH="/usr/bin:/bin",
                 LORASCALE_BUNDLE_LIBS="all")
    assert result.returncode == 0, result.stderr
    assert bench.metrics("bundle-mpi")[-1]["world_size"] == 2
    # Everything mpirun itself has loaded, plugins included, is the bundle's.
    maps = run(with_mpi / "bin/mpirun", "--allow-run-as-root", "-n", 1, "sh", "-c", "cat /proc/$PPID/maps",
               PATH="/usr/bin:/bin")
    loaded = set(re.findall(r"/\S+\.so\S*", maps.stdout))
    assert any("libopen-rte" in path for path in loaded), maps.stderr
    foreign = [path for path in loaded if not path.startswith(str(with_mpi)) and
               not re.fullmatch(GLIBC, pathlib.Path(path).name)]
    assert not foreign


def resolved(root):
    folders = [root / "lib", root / "lib/fallback", TORCH_LIB]
    text = subprocess.run(["ldd", root / "libexec/lorascale"], capture_output=True, text=True, check=True,
                          env={"LD_LIBRARY_PATH": ":".join(map(str, folders)), "PATH": os.environ["PATH"]}).stdout
    assert "not found" not in text
    return re.findall(r"^\s*(\S+) => (/.+) \(0x", text, re.M)


def test_every_library_is_in_the_bundle_or_the_targets_own(bundle):
    own_of_mpi = r"lib(mpi|open-rte|open-pal|hwloc|event|pmix|udev|nl|munge).*"
    for name, path in resolved(bundle):
        inside = path.startswith((str(bundle), str(TORCH_LIB))) or "nvidia" in path
        assert inside or re.fullmatch(GLIBC, name) or re.fullmatch(own_of_mpi, name), (name, path)


def test_no_trace_of_the_build_machine(bundle):
    text = subprocess.run(["readelf", "-d", bundle / "libexec/lorascale"], capture_output=True, text=True).stdout
    assert re.search(r"(RUNPATH|RPATH).*\[\$ORIGIN/\.\./lib\]", text)
    sections = subprocess.run(["readelf", "-S", bundle / "libexec/lorascale"], capture_output=True, text=True).stdout
    assert ".debug_info" not in sections and ".symtab" not in sections
    for path in [*bundle.glob("bin/*"), *bundle.glob("launch/*"), *bundle.glob("libexec/*.facts")]:
        assert str(ROOT) not in path.read_text() and str(TORCH_LIB) not in path.read_text(), path


def test_sums_are_right_and_complete(bundle):
    sums = dict(reversed(line.split("  ", 1)) for line in (bundle / "SHA256SUMS").read_text().splitlines())
    files = {f"./{path.relative_to(bundle)}" for path in bundle.rglob("*")
             if path.is_file() and not path.is_symlink()} - {"./SHA256SUMS"}
    assert set(sums) == files
    for name, digest in sums.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest, name


def test_same_build_same_bytes(tarball, tmp_path):
    assert pack(tmp_path / "again.tar.gz").returncode == 0
    assert (tmp_path / "again.tar.gz").read_bytes() == tarball.read_bytes()


def test_torch_of_a_python(bundle, tmp_path):
    python = TORCH_LIB.parents[4] / "bin/python"
    result = run(bundle / "bin/lorascale", "--version", LORASCALE_TORCH_LIB=None, LORASCALE_PYTHON=str(python))
    assert result.returncode == 0, result.stderr
    result = run(bundle / "bin/lorascale", "--version", LORASCALE_TORCH_LIB=None,
                 PATH=f"{python.parent}:{os.environ['PATH']}")
    assert result.returncode == 0, result.stderr


def refusal(bundle, *words, **variables):
    result = run(bundle / "bin/lorascale", "--version", **variables)
    assert result.returncode == 78 and result.stdout == "", result.stdout
    assert result.stderr.startswith("lorascale: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def test_no_torch_is_one_line_with_the_remedy(bundle):
    refusal(bundle, "no Python with torch", f"pip install torch=={VERSION}", LORASCALE_TORCH_LIB=None,
            PATH="/usr/bin:/bin", PYTHONPATH="", PYTHONNOUSERSITE="1")


def test_folder_without_libtorch(bundle, tmp_path):
    refusal(bundle, str(tmp_path), "LORASCALE_TORCH_LIB", LORASCALE_TORCH_LIB=str(tmp_path))


def test_other_torch_is_refused(bundle, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libtorch_cpu.so").touch()
    (tmp_path / "version.py").write_text("__version__ = '1.2.3+cpu'\n")
    refusal(bundle, "torch 1.2.3", f"torch=={VERSION}", LORASCALE_TORCH_LIB=str(tmp_path / "lib"))


def copy_with_facts(bundle, folder, **facts):
    """A second bundle that shares all files but what it says of itself."""
    subprocess.run(["cp", "-r", bundle, folder / "b"], check=True)
    path = folder / "b/libexec/bundle.facts"
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
    path.write_text("".join(f"{key}={value}\n" for key, value in {**lines, **facts}.items()))
    return folder / "b"


def test_older_c_library_is_refused(bundle, tmp_path):
    refusal(copy_with_facts(bundle, tmp_path, glibc="9.99"), "glibc 9.99 or newer")


def test_missing_library_is_named(bundle, tmp_path):
    other = copy_with_facts(bundle, tmp_path)
    program = other / "libexec/lorascale"
    program.write_bytes(program.read_bytes().replace(b"libmpi.so.40\0", b"libmpi.so.99\0"))
    refusal(other, "Open MPI 4", "load its module")
    program.write_bytes(program.read_bytes().replace(b"libmpi.so.99\0", b"libmpi.so.40\0").replace(
        b"libyaml-cpp.so.0.7\0", b"libyaml-cpp.so.9.9\0"))
    refusal(other, "libyaml-cpp.so.9.9")


@pytest.mark.parametrize("arguments, words", [
    (["--mpi", "mpich"], "takes system or copy"),
    (["--preset", "fast"], "build/fast/lorascale is missing"),
    (["--zip"], "unknown argument '--zip'"),
    (["--mpi"], "--mpi needs a value"),
])
def test_wrong_arguments(tmp_path, arguments, words):
    result = pack(tmp_path / "x.tar.gz", *arguments)
    assert result.returncode == 64 and words in result.stderr and not (tmp_path / "x.tar.gz").exists()
