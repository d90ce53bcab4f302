"""What the tests of scripts/gpu_day.sh share: the packed file, made once."""
import subprocess
import sys

import pytest

from shell_of_day import ROOT, SCRIPT, sh

sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    if not (ROOT / "build/release/cmake_install.cmake").exists():
        pytest.skip("there is no release build to pack")
    path = tmp_path_factory.mktemp("pack") / "day.tar.gz"
    result = sh(SCRIPT, "pack", path, timeout=400)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="session")
def package(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    subprocess.run(["tar", "-C", folder, "-xf", packed], check=True)
    return folder / "gpu-day"
