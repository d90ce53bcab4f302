"""Runs the lorascale program beside transformers + peft. The program is found through LORASCALE_PROGRAM, or at
build/release/lorascale."""
import os
import pathlib
import signal
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
for shared in ("parity", "faults"):  # reference.py and harness.py
    sys.path.insert(0, str(ROOT / "tests" / shared))

# Started in the background or under nohup, this process ignores signals that the tests send to their children, and a
# child cannot trap what it was told to ignore.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL),
                        (signal.SIGQUIT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: minutes; scripts/test.sh --slow runs it")
    config.addinivalue_line("markers", "readers: needs packages of other programs; scripts/test.sh --readers runs it")


def pytest_xdist_make_scheduler(config, log):
    """Tests of a file share fixtures, so a worker takes a file as a whole; those below share a folder's."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::", 1)[0]
            return "gpu_day" if "/gpu_day/" in file else file

    return ByFile(config, log)


@pytest.fixture(scope="session")
def program() -> str:
    path = pathlib.Path(os.environ.get("LORASCALE_PROGRAM", ROOT / "build/release/lorascale"))
    if not path.exists():
        pytest.fail(f"{path} is missing: run scripts/build.sh first")
    return str(path)
