"""The includes of src/ follow the table of docs/structure.md: a folder uses what the table allows it, nothing else."""
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(\w+)/` \|.*\| ([^|]+) \|$")


def allowed_uses():
    rows = [match for line in (ROOT / "docs/structure.md").read_text().splitlines() if (match := ROW.match(line))]
    order, allowed = [], {}
    for row in rows:
        folder, uses = row.group(1), row.group(2)
        names = set(order) if uses.strip() == "all above" else set(re.findall(r"[a-z]+", re.sub(r"\(.*?\)", "", uses)))
        for name in list(names):
            names |= allowed.get(name, set())
        allowed[folder] = names
        order.append(folder)
    return allowed


def test_every_folder_is_in_the_table():
    assert set(allowed_uses()) == {path.name for path in (ROOT / "src").iterdir() if path.is_dir()}


def test_includes_point_the_way_the_table_says():
    allowed, wrong = allowed_uses(), []
    for path in sorted((ROOT / "src").rglob("*.[ch]pp")):
        folder = path.relative_to(ROOT / "src").parts[0]
        for include in re.findall(r'^#include "(\w+)/', path.read_text(), re.MULTILINE):
            if include != folder and folder in allowed and include not in allowed[folder]:
                wrong.append(f"{path.relative_to(ROOT)} includes {include}/")
    assert not wrong, wrong


def test_configuration_reference_is_what_the_program_says(program):
    text = subprocess.run([program, "--help-markdown"], capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs/configuration.md").read_text() == text, \
        "run: build/release/lorascale --help-markdown > docs/configuration.md"


# What knows a kind of model, data or adapter by name. Trainer, coordinator and verbs use the seams above them.
KINDS = re.compile(r"^(models/\w+/|data/\w+/|adapters/\w+/|workloads/\w+/|workloads/workload_kind)")


def test_trainer_coordinator_and_verbs_know_no_kind():
    wrong = []
    for folder in ("train", "coordinator", "cli"):
        for path in sorted((ROOT / "src" / folder).rglob("*.[ch]pp")):
            wrong += [f"{path.relative_to(ROOT)} includes {include}"
                      for include in re.findall(r'^#include "([^"]+)"', path.read_text(), re.MULTILINE)
                      if KINDS.match(include)]
    assert not wrong, wrong


def test_nobody_outside_workloads_asks_which_workload_it_is():
    names = "|".join(sorted(path.name for path in (ROOT / "src/workloads").iterdir() if path.is_dir()))
    asks = re.compile(rf'workload_kind|WorkloadKind|workloads::({names})|dynamic_cast<[^>]*Workload|"({names})"')
    wrong = [f"{path.relative_to(ROOT)}: {match.group(0)}"
             for path in sorted((ROOT / "src").rglob("*.[ch]pp"))
             # The option table says which settings are whose; it asks nothing.
             if "workloads" not in path.parts and path.stem != "options"
             for match in [asks.search(path.read_text())] if match]
    assert not wrong, wrong
