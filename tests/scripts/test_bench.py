"""The benchmarks' sides compute the same: each runs on the small model of the quickstart, and losses agree: at first to
rounding, later as far as adapters that begin with other numbers do."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts/bench"))
import cpu_sides  # noqa: E402


@pytest.mark.parametrize("targets", [1.0, 0.2])
def test_sides_agree(program, targets, tmp_path, monkeypatch):
    monkeypatch.setenv("LORASCALE_PROGRAM", str(program))
    case = cpu_sides.Case("small", model=cpu_sides.DEMO, row=40, batch=4, rank=4, targets=targets, steps=4)
    cpu_sides.make_inputs(tmp_path, [case])
    ours, ranks, peer = (cpu_sides.in_child(side, case, tmp_path, threads)
                         for side, threads in ((cpu_sides.OURS, 1), (cpu_sides.RANKS, 2), (cpu_sides.PEER, 1)))
    assert ours["loss"] == pytest.approx(ranks["loss"], rel=1e-5)
    assert ours["loss"][0] == pytest.approx(peer["loss"][0], rel=1e-5)
    assert ours["loss"] == pytest.approx(peer["loss"], rel=1e-2)
    for side in (ours, ranks, peer):
        assert len(side["ms"]) == case.steps - cpu_sides.WARM_UP and min(side["ms"]) > 0 and side["mib"] > 50
