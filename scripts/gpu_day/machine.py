"""What the machine is: the card, its free memory, versions. The card is asked through nvidia-smi, which changes nothing."""
import ctypes
import glob
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import shutil
import subprocess
import time


def smi(fields: str):
    """The first card's values, or None where there is no nvidia-smi."""
    program = shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi"
    try:
        done = subprocess.run([program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"], timeout=20,
                              capture_output=True, text=True)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode or not done.stdout.strip():
        return None
    return [word.strip() for word in done.stdout.splitlines()[0].split(",")]


def used_mib():
    """Memory in use on the card, by whomever; None without a card."""
    found = smi("memory.used")
    return float(found[0]) if found else None


def check_given_back(part, before):
    """The card's memory is again what it was; a driver takes a moment for that."""
    if before is None:
        part.skip("memory of the card is given back", "there is no card")
        return
    begin = time.monotonic()
    while used_mib() > before + 64 and time.monotonic() - begin < 10:
        time.sleep(0.2)
    part.at_most("memory of the card in use afterwards, above before, MiB", used_mib() - before, 64.0)


def free_mib():
    found = smi("memory.free")
    return float(found[0]) if found else None


def site_packages():
    spec = importlib.util.find_spec("torch")
    return pathlib.Path(spec.submodule_search_locations[0]).parent if spec else None


def nccl_version():
    """Of the library that the program will load; read without a GPU."""
    site = site_packages()
    path = site / "nvidia/nccl/lib/libnccl.so.2" if site else None
    if not path or not path.exists():
        return None
    try:
        number = ctypes.c_int()
        if ctypes.CDLL(str(path)).ncclGetVersion(ctypes.byref(number)):
            return None
    except OSError as error:
        return str(error)
    return f"{number.value // 10000}.{number.value // 100 % 100}.{number.value % 100}"


def torch_version():
    site = site_packages()
    found = re.search(r"__version__ = ['\"]([^'\"]+)", (site / "torch/version.py").read_text()) if site else None
    return found[1] if found else None


def package_version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor():
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} x {found[1] if found else platform.machine()}"


def about():
    card = smi("name,driver_version,memory.total") or [None, None, None]
    return {"gpu": card[0], "driver": card[1], "memory_mib": card[2], "torch": torch_version(), "NCCL": nccl_version(),
            "transformers": package_version("transformers"), "peft": package_version("peft"),
            "processor": processor(), "kernel": platform.release(), "glibc": platform.libc_ver()[1],
            "device files": " ".join(sorted(glob.glob("/dev/nvidia*"))) or None}
