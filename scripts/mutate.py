#!/usr/bin/env python3
"""Plants known faults, one at a time, and sees whether the tests notice.

  scripts/mutate.py                    every fault of tests/mutants
  scripts/mutate.py io- coordinator-   those whose names begin so
  scripts/mutate.py --list             what there is

A fault is a patch, tests/mutants/AREA-NAME.patch. The lines in front of the patch say what it is:
  fault: what was done wrong, in words
  killed-by: the test that must fail, as one of
      TARGET [gtest filter]           a GoogleTest program, built for it
      mpi N TARGET [gtest filter]     the same on N ranks
      pytest FILE [-k EXPRESSION]     needs the program only where `builds:` names it
  builds: targets to build besides    (optional; lorascale for pytest of the program)
  equivalent: why no test can notice  (instead of killed-by, for a fault that is none)
Faults are planted in a copy of the last commit under build/mutants, never in the checkout. Ends with 0 where every fault
was noticed, or is said to be equivalent.
"""

import argparse
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ROOT / "tests/mutants"
TREE = ROOT / "build/mutants"
TEST_SECONDS = 300


class MutantError(Exception):
    """A patch that cannot be used as it stands."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    name: str
    fault: str
    killed_by: list[str]
    builds: list[str]
    equivalent: str
    patch: str


def parse(path):
    head, mark, patch = path.read_text().partition("\n--- ")
    fields = dict(re.findall(r"^([a-z-]+): (.+)$", head, re.MULTILINE))
    unknown = set(fields) - {"fault", "killed-by", "builds", "equivalent"}
    if not mark or unknown or "fault" not in fields or ("killed-by" in fields) == ("equivalent" in fields):
        raise MutantError(f"{path}: wants `fault:`, `killed-by:` or `equivalent:`, and a patch"
                          + (f"; knows no {', '.join(sorted(unknown))}" if unknown else ""))
    return Mutant(path.stem, fields["fault"], shlex.split(fields.get("killed-by", "")),
                  fields.get("builds", "").split(), fields.get("equivalent", ""), "--- " + patch)


def run(command, seconds, **more):
    """(exit code, output); a time-out counts as a failure of the test, as it does under CTest."""
    process = subprocess.Popen(command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True, **more)
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        return -9, output


def git(*arguments, **more):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, **more).stdout


def fresh_tree():
    commit = git("rev-parse", "HEAD", cwd=ROOT).strip()
    if not (TREE / ".git").exists():
        git("worktree", "prune", cwd=ROOT)
        git("worktree", "add", "--detach", "--force", str(TREE), commit, cwd=ROOT)
    git("checkout", "--force", "--detach", commit, cwd=TREE)
    return commit


def test_of(mutant):
    """(targets to build, command)"""
    words = list(mutant.killed_by)
    ranks = 1
    if words[0] == "pytest":
        python = subprocess.run([str(TREE / "scripts/setup.sh"), "--print-python"], check=True, capture_output=True,
                                text=True).stdout.strip()
        return mutant.builds, [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words[1:]]
    if words[0] == "mpi":
        ranks = int(words[1])
        words = words[2:]
    found = [path.parent.name for path in (TREE / "tests").glob("*/CMakeLists.txt")
             if re.search(rf"\b{re.escape(words[0])}\b", path.read_text())]
    if not found:
        raise MutantError(f"{mutant.name}: no target {words[0]} in tests/")
    command = [str(TREE / "build/release/tests" / found[0] / words[0]), "--gtest_brief=1"]
    if len(words) > 1:
        command.append(f"--gtest_filter={words[1]}")
    if ranks > 1:
        command = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]
    return [words[0], *mutant.builds], command


def environment():
    return {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1",
            "LORASCALE_PROGRAM": str(TREE / "build/release/lorascale")}


def build(targets):
    if targets:
        code, output = run(["scripts/build.sh", "release", *targets], 3600)
        if code != 0:
            raise MutantError(f"does not build:\n{output[-3000:]}")


def judge(mutant):
    """noticed, SURVIVED or equivalent, and the seconds it took."""
    begin = time.monotonic()
    if mutant.equivalent:
        return "equivalent", 0.0
    applied = subprocess.run(["git", "apply", "--recount", "--unidiff-zero", "-p1", "-"], input=mutant.patch, text=True,
                             cwd=TREE, capture_output=True)
    if applied.returncode != 0:
        raise MutantError(f"{mutant.name}: does not apply: {applied.stderr.strip()}")
    try:
        targets, command = test_of(mutant)
        build(targets)
        code, output = run(command, TEST_SECONDS, env=environment())
    finally:
        git("checkout", "--force", "--", ".", cwd=TREE)
        git("clean", "-fdq", "--exclude=build", cwd=TREE)
    if re.search(r"no tests ran|\b0 tests from|collected 0 items|[Ee]rror: file or directory not found", output):
        raise MutantError(f"{mutant.name}: {' '.join(mutant.killed_by)} runs no test")
    return ("noticed" if code != 0 else "SURVIVED"), time.monotonic() - begin


def passes_unharmed(mutants):
    """The tests themselves, each once: a test that fails anyway notices nothing."""
    seen = {}
    for mutant in mutants:
        key = tuple(mutant.killed_by)
        if mutant.equivalent or key in seen:
            continue
        targets, command = test_of(mutant)
        build(targets)
        code, output = run(command, TEST_SECONDS, env=environment())
        seen[key] = code == 0
        if code != 0:
            print(f"fails without any fault: {' '.join(key)}\n{output[-2000:]}", file=sys.stderr)
    return all(seen.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginnings of names (default: all)")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--trust-tests", action="store_true", help="do not run the tests without a fault first")
    options = parser.parse_args()
    try:
        mutants = [parse(path) for path in sorted(FAULTS.glob("*.patch"))]
        if options.names:
            mutants = [mutant for mutant in mutants if mutant.name.startswith(tuple(options.names))]
        if not mutants:
            raise MutantError("no fault of that name in tests/mutants")
        if options.list:
            for mutant in mutants:
                print(f"{mutant.name:44} {mutant.fault}")
            return 0
        fresh_tree()
        if not options.trust_tests and not passes_unharmed(mutants):
            return 1
        counts = {"noticed": 0, "SURVIVED": 0, "equivalent": 0, "UNUSABLE": 0}
        for mutant in mutants:
            try:
                verdict, seconds = judge(mutant)
            except MutantError as error:
                verdict, seconds = "UNUSABLE", 0.0
                print(f"mutate: {error}", file=sys.stderr, flush=True)
            counts[verdict] += 1
            print(f"{verdict:10} {mutant.name:44} {seconds:6.1f} s  {mutant.fault}", flush=True)
    except MutantError as error:
        print(f"mutate: {error}", file=sys.stderr)
        return 1
    real = counts["noticed"] + counts["SURVIVED"]
    print(f"{counts['noticed']} of {real} faults noticed ({counts['noticed'] / max(1, real):.1%}), "
          f"{counts['equivalent']} equivalent, {counts['UNUSABLE']} unusable (do not apply, build or run a test)")
    return 1 if counts["SURVIVED"] or counts["UNUSABLE"] else 0


if __name__ == "__main__":
    sys.exit(main())
