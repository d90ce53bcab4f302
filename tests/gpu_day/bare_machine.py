"""Runs a command where Debian's MPI, HDF5 and compilers, ssh, h5py and the network are not there.

    bare_machine.py FOLDER PYTHON COMMAND ...       inside `unshare --mount --net`

/usr/bin and the libraries' folder are replaced, in this mount namespace alone, by folders of links to what remains.
"""
import fcntl
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys

LIBRARIES = re.compile(
    r"lib(mpi|ompi|open-|hdf5|pmix|prrte|hwloc|event|spdlog|fmt|yaml-cpp|boost|sz\.|aec|munge|nl-|udev|ltdl|numa|psm|fabric|"
    r"ucp|ucs|uct|ibverbs|rdmacm|curl|rtmp|ldap|lber|sasl|ssh2|nghttp2|psl)|openmpi|hdf5|pmix|gcc")
PROGRAMS = re.compile(
    r"mpi|orte|ompi|prte|h5|pmix|gcc|g\+\+|cc$|c\+\+|c89|c99|cpp|x86_64-linux-gnu-g|ld$|ld\.|as$|clang|cmake|ninja|ccache|"
    r"ssh|rsh|srun|sbatch")


def bind(source, target):
    subprocess.run(["mount", "--bind", source, target], check=True)


def show_without(folder: pathlib.Path, hidden, scratch: pathlib.Path):
    original, view = scratch / f"{folder.name}-original", scratch / f"{folder.name}-view"
    original.mkdir()
    view.mkdir()
    bind(folder, original)
    for entry in folder.iterdir():
        if not hidden.match(entry.name):
            (view / entry.name).symlink_to(original / entry.name)
    bind(view, folder)


def raise_loopback():
    with socket.socket() as any_socket:
        request = struct.pack("16sh", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


def main():
    scratch, python, command = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    libraries = pathlib.Path("/usr/lib/x86_64-linux-gnu").resolve()
    empty = scratch / "empty"
    empty.mkdir()
    site = pathlib.Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                                       capture_output=True, text=True, check=True).stdout.strip())
    for name in ("h5py", "mpi4py"):
        if (site / name).exists():
            bind(empty, site / name)
    raise_loopback()
    environment = {**os.environ}
    show_without(libraries, LIBRARIES, scratch)
    show_without(pathlib.Path("/usr/bin"), PROGRAMS, scratch)
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    main()
