"""The parts of scripts/gpu_day.sh one by one: what they count, judge, fill and clean up, also where only a card would
take them."""
import contextlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from gpu_day import (cases, counting, filler, machine, part1_start, part5_memory, part7_speed, results, shapes,
                     tensors)
from gpu_day.day import Day, Outcome, PartOver, marked
from gpu_day.part2_parity import losses_off

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


def make(tmp_path, limit):
    tmp_path.mkdir(exist_ok=True)
    day = Day(tmp_path, tmp_path, tmp_path, "cpu", True, pathlib.Path("/bin/false"), pathlib.Path("/bin/false"))
    day.part = results.Part(1, "one", limit)
    return day


def test_a_command_at_its_limit_leaves_nothing(tmp_path):
    """Not even what moved into a session of its own, as the launcher's mpirun does."""
    day = make(tmp_path, 60)
    begin = time.monotonic()
    other = day.start(["sleep", "60"])
    outcome = day.command(["bash", "-c", "setsid sleep 60 & sleep 60"], 1)
    assert outcome.code == 124 and "its limit" in outcome.err and time.monotonic() - begin < 15
    assert marked(day.token) == [other.pid]
    assert day.clean() == 1 and other.wait(timeout=10) == -9
    assert marked(day.token) == []
    assert day.command(["bash", "-c", "kill -9 $$"]).code == 137


def test_no_command_begins_after_the_part(tmp_path):
    day = make(tmp_path, 0.5)
    with pytest.raises(PartOver):
        day.command(["true"])


def test_the_page_names_checks_that_there_are():
    """An open point of the device code whose check was renamed or lost is noticed."""
    page = (ROOT / "docs/gpu-day.md").read_text().split("## What reading")[1]
    points = re.findall(r"^(\d+)\. (.*(?:\n {3,}.*)*)", page, re.M)
    assert [int(number) for number, _ in points] == list(range(1, len(points) + 1))
    code = "".join(path.read_text() for path in (ROOT / "scripts/gpu_day").glob("*.py"))
    code = re.sub(r'"\n\s*f?"', "", re.sub(r"\{reduction\}", "exact", code))  # sentences over two lines, names made up
    for number, text in points:
        words = re.findall(r"\*([^*]+)\*", re.sub(r"\s+", " ", text))
        assert words, number
        for name in words:
            assert name in code, f"{number}: {name}"


def test_verdicts():
    part = results.Part(1, "one", 1)
    assert part.verdict == results.FAIL  # nothing was checked
    part.seen("number", 3)
    assert part.verdict == results.FAIL
    part.at_most("small", 1, 1)
    part.at_least("large", 2, 2)
    part.skip("later", "no time")
    assert part.verdict == results.PASS
    part.at_most("not a number", float("nan"), 1)
    assert part.verdict == results.FAIL and part.checks[-1]["value"] == "nan"
    json.dumps(part.to_json(), allow_nan=False)


def test_distances():
    e = {"a": np.array([3.0, 4.0]), "b": np.zeros(2)}
    assert tensors.worst_relative({"a": np.array([3.0, 4.5]), "b": np.zeros(2)}, e) == pytest.approx(0.1)
    assert tensors.worst_relative({"a": e["a"], "b": np.array([0, 1e-9])}, e) == math.inf
    assert tensors.worst_relative({"a": e["a"]}, e) == math.inf
    assert tensors.worst_relative({"a": np.array([3.0, np.nan]), "b": e["b"]}, e) == math.inf
    assert tensors.worst_cosine({"a": np.array([-4.0, 3.0])}, {"a": e["a"]}) == pytest.approx(0)

    class Run:
        def __init__(self, *losses):
            self.losses = lambda: list(losses)
    lines = [{"loss": 2.0}, {"loss": 1.0}]
    assert losses_off(Run(2.0, 1.001), lines) == pytest.approx(1e-3)
    assert losses_off(Run(2.0), lines) == losses_off(Run(2.0, None), lines) == math.inf


def test_safetensors_as_the_library_reads_them(tmp_path):
    import torch
    from safetensors.torch import save_file
    stored = {"x": torch.randn(3, 5), "y": torch.randn(4, 2).to(torch.bfloat16), "z": torch.randn(2).half()}
    save_file(stored, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = tensors.load_folder(tmp_path)
    for name, value in stored.items():
        assert np.array_equal(found[name], value.float().numpy())
    before = tensors.digest(tmp_path)
    stored["x"][0, 0] = torch.nextafter(stored["x"][0, 0], torch.tensor(9.0))
    save_file(stored, tmp_path / "a.safetensors", metadata={"other": "header"})
    assert tensors.digest(tmp_path) != before


@pytest.mark.parametrize("name, row, giga", [("8B", 2048, 31.9), ("8B", 4096, 33.5), ("1B", 2048, 5.41), ("1B", 4096, 5.82)])
def test_arithmetic_of_a_token(name, row, giga):
    """Against figures that were worked out by hand from the published shapes."""
    assert shapes.flops_per_token(shapes.SHAPES[name], row) / 1e9 == pytest.approx(giga, rel=2e-3)


def test_random_models_load_in_transformers(tmp_path):
    import transformers
    shapes.write("tiny", tmp_path / "tiny")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert sum(p.numel() for p in model.parameters() if p.dim() > 1) * 2 == shapes.weight_bytes(shapes.SHAPES["tiny"])
    values = [p.flatten()[:64] for p in model.parameters() if p.dim() > 1]
    assert not any(np.allclose(a, b) for i, a in enumerate(map(lambda v: v.detach().float(), values))
                   for b in [v.detach().float() for v in values[:i]]), "two tensors begin alike"


@pytest.fixture
def card(tmp_path, monkeypatch):
    """A machine with an nvidia-smi; the test says what it answers."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/nvidia-smi"
    script.write_text("""#!/bin/bash
for field in $(tr , ' ' <<<"${1#--query-gpu=}"); do out+="${out:+, }$(cat "${0%/*}/$field")"; done
printf '%s\\n%s\\n' "$out" "a second card"
""")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def answers(**fields):
        for name, value in {"name": "A Card", "driver_version": "1.2", "memory.total": 140000, **fields}.items():
            (tmp_path / "bin" / name.replace("memory_", "memory.")).write_text(f"{value}\n")
    answers(memory_used=1000, memory_free=139000)
    return answers


def test_what_the_card_says(card):
    about = machine.about()
    assert (about["gpu"], about["driver"], about["memory_mib"]) == ("A Card", "1.2", "140000")
    assert machine.used_mib() == 1000 and machine.free_mib() == 139000


@pytest.mark.parametrize("later, verdict", [(1060, results.PASS), (1200, results.FAIL)])
def test_memory_that_is_not_given_back(card, monkeypatch, later, verdict):
    clock = iter(range(100))
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(machine.time, "sleep", lambda _: None)
    part = results.Part(1, "one", 1)
    card(memory_used=later)
    machine.check_given_back(part, 1000)
    assert part.checks[-1]["verdict"] == verdict


def test_a_small_card_gets_no_large_peer(card):
    part = results.Part(7, "seven", 1)
    assert part7_speed.enough_room(None, part, "8B") and not part.checks
    card(memory_free=80000)
    assert not part7_speed.enough_room(None, part, "8B") and part.checks[-1]["verdict"] == results.SKIPPED
    assert part7_speed.enough_room(None, part, "1B")


@pytest.mark.parametrize("total, keep", [(139 << 30, 2500 << 20), (20 << 30, 300 << 20), (1 << 30, 2 << 30)])
def test_the_card_is_never_filled_beyond_what_is_to_be_left(total, keep):
    left = total

    def take(size):
        nonlocal left
        assert 0 < size <= filler.MOST
        left -= -(-size // (2 << 20)) * (2 << 20)  # a card hands out whole pages
        return size
    held = filler.fill(keep, lambda: left, take)
    assert len(held) < 100
    assert left == total if total < keep else keep - (2 << 20) <= left <= keep + filler.SLACK


def test_another_program_fills_the_card_for_as_long_as_it_is_wanted(tmp_path, monkeypatch):
    day = make(tmp_path, 60)
    stub = tmp_path / "python"
    stub.write_text("#!/bin/bash\nif (($3 > 1000)); then echo 2477; cat; else echo 'out of memory' >&2; exit 1; fi\n")
    stub.chmod(0o755)
    monkeypatch.setattr(part5_memory.sys, "executable", str(stub))
    with part5_memory.filled(day, 2500) as left:
        assert left == 2477 and len(marked(day.token)) >= 1
    assert marked(day.token) == []
    with pytest.raises(RuntimeError, match="out of memory"):
        with part5_memory.filled(day, 5):
            pass


def test_models_are_made_in_memory_where_there_is_room(tmp_path, monkeypatch):
    day = make(tmp_path / "work", 60)
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(shapes, "weight_bytes", lambda shape: 1 << 20)
    day.make_shapes(["tiny"], shared)
    assert day.shapes.parent == shared and day.clean() == 0
    while day.making_shapes():
        time.sleep(0.05)
    assert (day.shapes / "tiny/config.json").exists()
    day.stop_making_shapes()
    assert not list(shared.iterdir())
    monkeypatch.setattr(shapes, "weight_bytes", lambda shape: 1 << 50)
    day.shapes = day.work
    day.make_shapes(["tiny"], shared)
    assert day.shapes == day.work
    day.stop_making_shapes()
    assert marked(day.token) == []


def failed(part):
    return {check["name"] for check in part.checks if check["verdict"] == results.FAIL}


@pytest.fixture
def small_day(package, tmp_path):
    """A day with the sizes of a card, on this CPU: what only a card would reach is run by the tests below."""
    day = Day(package, tmp_path, tmp_path, "cpu", False)
    day.part = results.Part(1, "one", 100)
    shapes.write("tiny", tmp_path / "tiny")
    return day


def test_parts_about_a_filled_card(small_day, card, monkeypatch):
    @contextlib.contextmanager
    def filled(day, keep):
        yield keep
    def tiny(day, change):
        settings = cases.merged(cases.base(day.material, {"data": {"train": "short.h5", "sequence_length": 64}}), change,
                                {"model": {"path": str(day.work / "tiny")}})
        settings["adapter"].pop("init_from")
        return settings
    monkeypatch.setattr(part5_memory, "filled", filled)
    monkeypatch.setattr(part5_memory, "settings_of", tiny)
    part5_memory.full_card(small_day, small_day.part)
    part5_memory.filled_meanwhile(small_day, small_day.part)
    assert failed(small_day.part) == {"memory.budget_mib: 1 does not limit a run on the card"}
    assert len(small_day.part.checks) == 9


def test_a_card_that_is_not_there_fails_its_checks(small_day):
    """The first part as on a GPU, where there is none."""
    small_day.device = "cuda"
    part1_start.run(small_day, small_day.part)
    assert {"run.device: auto takes", "a rank without a card: exit code", "a rank without a card: is named",
            "CUDA_VISIBLE_DEVICES=9: a warning names the variable"} <= failed(small_day.part)
    assert "run.device: cuda without a card is refused with" not in failed(small_day.part)


def test_counts_come_into_the_table(small_day, monkeypatch):
    def watch(process, metrics, file, seconds):
        process.communicate(timeout=60)
        counts = {name: 0 for name in counting.NAMES}
        return [(line["step_ms"] * n / 1000, {**counts, "launches": 1000 + 41 * n, "graphs": n, "waits": 3 * n})
                for n, line in enumerate(map(json.loads, metrics.read_text().splitlines()))]
    monkeypatch.setattr(counting, "watch", watch)
    monkeypatch.setattr(Day, "finish", lambda *_: Outcome(0, "", "", 1.0))
    speed = part7_speed.Speed(small_day, small_day.part)
    speed.sizes = {**part7_speed.STAND_IN, "grid": [(128, 0.0)]}
    speed.tokens, speed.ceiling = 512, 1000.0
    speed.add("tiny", 128, 0.0, "lorascale", 10.0, 5.0, None, None, [6.5])
    speed.add("tiny", 128, 0.0, "eager", 20.0, 5.0, 900, 7, [6.5 * 1.01])
    speed.counted("tiny", 0)
    speed.compare()
    (table,) = small_day.part.tables
    assert table["rows"][0][-2:] == [42, 3] and table["rows"][0][6] == "2.00"
    assert "tiny, rows of 128, dropout 0.0: first loss against the peer's, relative" in failed(small_day.part)
    names = {check["name"]: check for check in small_day.part.checks}
    assert names["tiny: managed memory asked for"]["verdict"] == results.PASS
    # 512 tokens in 10 ms of a model whose arithmetic is known, on a card of 1000 TFLOP/s.
    share = names["tiny, rows of 128, dropout 0.0: share of the limit (more than all is a wrong measurement)"]
    assert share["value"] == pytest.approx(51200 * shapes.flops_per_token(shapes.SHAPES["tiny"], 128) / 1e15)


def test_kernels_and_waits_of_the_peer():
    import torch
    from gpu_day.peer import count_events
    cuda, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
    events = [(cuda, "ampere_bf16_gemm"), (cuda, "Memcpy HtoD"), (cuda, "Memset (Device)"), (cuda, "elementwise"),
              (cpu, "cudaLaunchKernel"), (cpu, "cudaStreamSynchronize"), (cpu, "cudaDeviceSynchronize"), (cpu, "aten::mm")]

    class Event:
        def __init__(self, device_type, name):
            self.device_type, self.name = device_type, name
    assert count_events([Event(*each) for each in events]) == (2, 2)


UPDATES = """
import ctypes, os, sys, time
count, cupti = ctypes.CDLL(os.environ["CUDA_INJECTION64_PATH"]), ctypes.CDLL(os.environ["LORASCALE_CUPTI"])
assert count.InitializeInjection() == 1
DRIVER, RUNTIME, ENTER, EXIT = 1, 2, 0, 1
numbers = {}
def call(name, times=1, site=ENTER, domain=DRIVER):
    number = numbers.setdefault(name, len(numbers) + (5000 if name == "cuLaunchKernelEx" else 1))
    for _ in range(times):
        cupti.driver_call(name.encode(), number, site, domain)
call("cuMemAlloc_v2", 3)
for update in range(6):
    launches = 1000 if update < 2 else 40  # the first ones warm up
    call("cuLaunchKernel", launches)
    call("cuLaunchKernel", launches, EXIT)
    call("cuLaunchKernel", launches, ENTER, RUNTIME)
    call("cuLaunchKernelEx", 2)
    call("cuLaunchHostFunc", 9)
    call("cuGraphLaunch", 1)
    call("cuStreamSynchronize", 3)
    call("cuCtxSynchronize", 1)
    call("cuMemcpyDtoH_v2", 2)
    call("cuMemcpyDtoHAsync_v2", 50)
    call("cuMemAllocManaged", int(update == 5))
    with open(sys.argv[1], "a") as file:
        file.write("{}\\n")
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("count")
    for source, library in ((ROOT / "scripts/gpu_day/count.c", "libcount.so"), (HERE / "mock_cupti.c", "libmock.so")):
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", folder / library, source,
                        "-ldl"], check=True)
    return folder


def test_launches_and_waits_are_counted(counter, tmp_path):
    file, metrics = tmp_path / "counts", tmp_path / "metrics.jsonl"
    process = subprocess.Popen([sys.executable, "-c", UPDATES, metrics],
                               env={**os.environ, "CUDA_INJECTION64_PATH": str(counter / "libcount.so"),
                                    "LORASCALE_COUNT_FILE": str(file), "LORASCALE_CUPTI": str(counter / "libmock.so")})
    seen = counting.watch(process, metrics, file, 30)
    assert process.wait(timeout=10) == 0
    assert len(seen) == 6
    assert counting.per_update(seen, 2) == pytest.approx(
        {"launches": 42, "graphs": 1, "waits": 4, "copies": 2, "managed": 1 / 3, "allocations": 0})
    assert seen[-1][1]["allocations"] == 3 and seen[-1][1]["managed"] == 1
    assert 95 < counting.interval_ms(seen, 2) < 400


def test_without_cupti_nothing_is_counted_and_nothing_breaks(counter, tmp_path):
    code = "import ctypes, os; assert ctypes.CDLL(os.environ['LIB']).InitializeInjection() == 1"
    for variables in ({"LORASCALE_COUNT_FILE": str(tmp_path / "counts"), "LORASCALE_CUPTI": "/nowhere.so"}, {},
                      {"LORASCALE_COUNT_FILE": "/nowhere/counts"}):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              env={"LIB": str(counter / "libcount.so"), **variables})
        assert done.returncode == 0 and "nothing is counted" in done.stderr, done.stderr
    assert counting.snapshot(tmp_path / "counts") is None and counting.snapshot(tmp_path / "none") is None
    assert counting.per_update([(0.0, None)] * 8, 2) is None


def test_the_interface_to_cupti_is_that_of_its_headers(tmp_path):
    """count.c declares what it uses of CUPTI itself; the compiler compares that with the real headers."""
    include = machine.site_packages() / "nvidia/cu13/include"
    if not (include / "cupti.h").exists():
        pytest.skip("no CUPTI headers in this environment")
    (tmp_path / "check.c").write_text("""
#include <cupti.h>
#include <stddef.h>
_Static_assert(CUPTI_CB_DOMAIN_DRIVER_API == 1 && CUPTI_API_ENTER == 0, "numbers");
_Static_assert(offsetof(CUpti_CallbackData, callbackSite) == 0 && sizeof(CUpti_ApiCallbackSite) == 4, "site");
_Static_assert(offsetof(CUpti_CallbackData, functionName) == 8, "name");
_Static_assert(CUPTI_DRIVER_TRACE_CBID_SIZE < 4096, "numbers of callbacks");
CUptiResult (*subscribe)(CUpti_SubscriberHandle *, CUpti_CallbackFunc, void *) = cuptiSubscribe;
CUptiResult (*enable)(uint32_t, CUpti_SubscriberHandle, CUpti_CallbackDomain) = cuptiEnableDomain;
""")
    done = subprocess.run(["cc", "-Werror", "-fsyntax-only", f"-I{include}", tmp_path / "check.c"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
