"""Every block of shell commands in the README and in docs/ works as it stands: it is run in a copy of the checkout, block
after block of a page, or it is listed here with the reason why it cannot be."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import diffusion_reference as reference
import numpy
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECONDS = 600

# What a block holds -> why it is not run here. Every entry must still be in use.
NOT_RUN = {
    "scripts/test.sh": "runs this test",
    "scripts/quickstart.sh": "minutes long: tests/scripts/test_quickstart.py runs it with a few updates",
    "scripts/smollm2_demo.sh": "minutes long: tests/scripts/test_smollm2_demo.py runs it with a few updates",
    "scripts/glyphs_demo.sh": "minutes long: tests/scripts/test_glyphs_demo.py runs it with a few updates",
    "configs/llama3-8b-single-node.yaml": "needs GPUs and the weights of an 8B model",
    "scripts/gpu_day.sh": "minutes long: tests/gpu_day runs it with small sizes",
    "sbatch ": "needs SLURM: tests/launch/test_docs.py runs the like",
}
# What the reader of a page has, by its name: a function of the checkout makes it.
GIVEN = {
    "images.md": lambda checkout: make_photos(checkout / "photos"),
    "stable-diffusion.md": lambda checkout: make_drawings(checkout),
    "train-a-folder.md": lambda checkout: make_drawings(checkout),
}
# Pages whose commands another test runs.
RUN_ELSEWHERE = {"running.md": "tests/launch/test_docs.py has the machines that it speaks of"}


def blocks_of(page):
    """(line, text) of each block of shell commands."""
    text = page.read_text()
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, m.start()) + 2, m[2]) for m in found if m[1].split()[:1] == ["sh"]]


def reason_not_to_run(block):
    return next((reason for part, reason in NOT_RUN.items() if part in block), None)


def make_photos(folder):
    """Sixty pictures of three classes, which differ in how light they are."""
    random = numpy.random.default_rng(0)
    for i in range(60):
        path = folder / ("ant", "bee", "cat")[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 80, (16, 24, 3)) + 60 * (i % 3)
        Image.fromarray(pixels.astype(numpy.uint8)).save(path)


def make_drawings(checkout):
    """A small model in the place of SD 1.5, and pictures as small."""
    reference.make_pipeline(checkout / "models/sd15", halvings=3)
    reference.make_pictures(checkout / "drawings", [(64, 64)] * 12 + [(64, 128)] * 8)


PAGES_WITH_COMMANDS = [
    page
    for page in PAGES
    if page.name not in RUN_ELSEWHERE and any(reason_not_to_run(block) is None for _, block in blocks_of(page))
]


@pytest.fixture
def checkout(tmp_path, program):
    """A copy of what git would hold, with the program that is under test."""
    copy = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".git", "build", "runs", "data", "__pycache__", ".cache", "*.pyc")
    at_root = {"build", "runs", "data", ".git"}
    shutil.copytree(
        ROOT,
        copy,
        ignore=lambda folder, names: (
            {n for n in names if n in at_root} if Path(folder) == ROOT else set()
        ) | (ignored(folder, names) - at_root),
    )  # fmt: skip
    (copy / "build" / "release").mkdir(parents=True)
    (copy / "build" / "release" / "lorascale").symlink_to(Path(program).resolve())
    return copy


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_work_as_printed(page, checkout):
    environment = {key: value for key, value in os.environ.items() if key != "LORASCALE_PROGRAM"}
    GIVEN.get(page.name, lambda _: None)(checkout)
    for line, block in blocks_of(page):
        if reason_not_to_run(block):
            continue
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=checkout, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip
        where = f"{page.relative_to(ROOT)}:{line}"
        assert result.returncode == 0, f"{where}\n{block}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"


def test_reasons_are_still_needed():
    blocks = [block for page in PAGES for _, block in blocks_of(page)]
    assert blocks and PAGES_WITH_COMMANDS
    assert set(GIVEN) <= {page.name for page in PAGES_WITH_COMMANDS}
    for part in NOT_RUN:
        assert any(part in block for block in blocks), f"nothing holds {part!r} any more"


def test_scripts_and_settings_in_commands_exist():
    """Also of the blocks that are not run: a renamed script or preset is noticed."""
    for page in PAGES:
        for line, block in blocks_of(page):
            for name in re.findall(r"(?<![\w/.-])(?:scripts|launch|configs|cluster|docs)/[\w./-]+\w", block):
                assert (ROOT / name).exists(), f"{page.relative_to(ROOT)}:{line} names {name}, which is not there"


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
