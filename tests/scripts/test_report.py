"""The report of a run folder: what it says is what the records say, and a folder that is missing or damaged costs one
clear line."""

import html.parser
import io
import json
import math
import os
import re
import resource
import subprocess
import sys
import types
from pathlib import Path

import matplotlib.image
import pytest
from lorascale_report import chart, commands, facts, page, terminal, words
from lorascale_report.run_folder import ReportError, Sample, read_run, read_samples, smoothed

REPORT = Path(__file__).resolve().parents[2] / "scripts" / "report.py"
CONFIG = """run: {output_dir: runs/x}
model: {path: models/base}
adapter: {type: lora, rank: 4, alpha: 8}
data: {train: data/none.h5}
budget: 160 samples
"""


def update(step, **more):
    return {
        "step": step, "samples": 16 * step, "epoch": step / 10, "loss": 3.0 / step, "lr": 1e-3, "global_batch": 16,
        "world_size": 2, "applied": True, "tokens": 100, "step_ms": 500.0, **more,
    }  # fmt: skip


def make_run(folder, lines=None, **files):
    folder.mkdir(parents=True, exist_ok=True)
    if lines is None:
        lines = [{"step": 0, "samples": 0, "epoch": 0.0, "val_loss": 2.5}]
        lines += [update(step) for step in range(1, 10)] + [update(10, val_loss=1.25)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "decisions.jsonl").write_text('{"step":0,"samples":0,"kind":"plan","reason":"ten <b>updates</b>"}\n')
    (folder / "status.json").write_text('{"outcome":"done","step":10,"message":"done after 10 steps"}')
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def run_report(*arguments):
    return subprocess.run(
        [sys.executable, str(REPORT), *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_says_what_the_records_say(tmp_path):
    folder = make_run(
        tmp_path / "run",
        samples__before_txt="> And\nAnd the option\n\n> It\nIt is\n\n",
        samples__after_txt="> And\nAnd the LORD\n\n> It\nIt was so\n\n",
    )
    (folder / "adapter").mkdir()
    result = run_report(folder)
    assert result.returncode == 0, result.stderr
    text = result.stdout
    assert "2.5000 -> 1.2500 nats per token" in text
    assert f"{math.exp(2.5):.2f} -> {math.exp(1.25):.2f} per token" in text
    assert "(-50.0 %)" in text
    assert "10 updates, 160 samples, 1,000 tokens, 1.00 epochs" in text
    assert "5 s of updates on 2 rank(s), 200 tokens/s" in text
    assert text.index("the option") < text.index("the LORD")
    assert f"merge --model models/base --adapter {folder}/adapter" in text
    for name in ("report.html", "report.png"):
        assert str(folder / name) in text
    assert matplotlib.image.imread(folder / "report.png").shape[2] >= 3
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["adapter", "config.yaml", "decisions.jsonl", "metrics.jsonl", "report.html", "report.png", "samples", "status.json"]
    )  # fmt: skip


class Tags(html.parser.HTMLParser):
    """Which tags a page opens, and the addresses in it."""

    def __init__(self):
        super().__init__()
        self.names, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data")]


def test_page_needs_nothing_else_and_trusts_no_text(tmp_path):
    folder = make_run(
        tmp_path / "run",
        samples__before_txt="> a\na<script>alert(1)</script>\x1b[2J\x1b]0;x\x07\n\n",
        samples__after_txt="> a\na b\n\n",
    )
    text = page.render(read_run(folder), [])
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.names and tags.names.count("b") == 4  # those of the tiles
    assert tags.addresses == [] and "url(" not in text and "@import" not in text
    assert "\x1b" not in text and "\x07" not in text
    assert tags.names.count("svg") == 3
    out = io.StringIO()
    terminal.print_report(read_run(folder), [], stream=out)
    assert "\x1b" not in out.getvalue()


def test_a_run_on_images_speaks_of_accuracy(tmp_path):
    """No token in it: an accuracy stands where the perplexity does, in words, curves and tables."""
    lines = [{"step": 0, "samples": 0, "epoch": 0.0, "val_loss": 2.5, "val_accuracy": 0.125}]
    for step in range(1, 11):
        line = update(step, images=16, accuracy=step / 16, **({"val_loss": 1.25, "val_accuracy": 0.875} if step == 10 else {}))
        del line["tokens"]
        lines.append(line)
    folder = make_run(tmp_path / "run", lines)
    (folder / "config.yaml").write_text(
        "model: {path: '', architecture: resnet, resnet: {block: basic, layers: [1, 1], width: 4, norm: group}}\n"
        "adapter: {type: full, rank: 8, alpha: 16}\ndata: {train: data/none.h5}\n"
    )
    result = run_report(folder)
    assert result.returncode == 0, result.stderr
    assert "2.5000 -> 1.2500 (-50.0 %), 87.50 % right" in result.stdout.splitlines()[0]
    assert dict(facts.facts(read_run(folder)))["accuracy"] == "12.50 % -> 87.50 % of validation"
    assert "2.5000 -> 1.2500 nats per image" in result.stdout
    assert "resnet, untrained at first: block basic, layers [1, 1], width 4, norm group" in result.stdout
    assert "10 updates, 160 samples, 1.00 epochs" in result.stdout
    assert "5 s of updates on 2 rank(s), 32 images/s" in result.stdout
    assert re.search(r"^ +10 +160 +0.3000 +1.2500 +87.50 % +0.001 ", result.stdout, re.M)
    text = (folder / "report.html").read_text()
    assert text.count("<svg") == 4 and "share of right answers" in text and "<td class=\"n\">87.50%" in text
    assert re.findall(r"<title>validation, update (\d+): ([0-9.]+)</title>", text)[2:] == [("0", "12.5000"), ("10", "87.5000")]
    for shown in (text, result.stdout):
        assert "token" not in shown and "perplexity" not in shown and "model/path" not in shown
    plain = read_run(make_run(tmp_path / "plain"))
    assert not plain.measures_accuracy and "accuracy" not in "\n".join(terminal.report_lines(plain, []))


def test_chart_of_validation_has_each_point(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    text = page.render(run, [])
    assert re.findall(r"<title>validation, update (\d+): ([0-9.]+)</title>", text) == [("0", "2.5000"), ("10", "1.2500")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", None, "holds no metrics.jsonl"),
        ("metrics.jsonl", b"", "holds no update yet"),
        ("metrics.jsonl", b'{"step":0,"samples":0,"val_loss":2}\n', "holds no update yet"),
        ("metrics.jsonl", b'{"step":1,"samples":16}\n{"step":2,\n{"step":3,"samples":48}\n', "line 2 is not JSON"),
        ("metrics.jsonl", b"\xff\xfe\x00\n", "line 1 is not JSON"),
        ("metrics.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("metrics.jsonl", b'{"samples":16}\n', "no whole number 'step'"),
        ("metrics.jsonl", b'{"step":true,"samples":16}\n', "no whole number 'step'"),
        ("metrics.jsonl", b'{"step":1,"samples":"16"}\n', "no whole number 'samples'"),
        ("metrics.jsonl", b'{"step":2,"samples":32}\n{"step":2,"samples":32}\n', "step 2 comes after step 2"),
        ("decisions.jsonl", b"{}\n", "no whole number 'step'"),
        ("config.yaml", b"a: [1\n", "config.yaml is not YAML"),
        ("status.json", b"{", "status.json is not JSON"),
    ],
)
def test_damage_costs_one_line(tmp_path, name, content, message):
    folder = make_run(tmp_path / "run")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    result = run_report(folder)
    assert result.returncode == 65
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("report: ") and message in result.stderr and str(folder) in result.stderr
    assert not (folder / "report.html").exists()


def test_missing_folder_and_wrong_usage(tmp_path):
    result = run_report(tmp_path / "nothing")
    assert (result.returncode, result.stderr.count("\n")) == (65, 1)
    assert "is not a folder" in result.stderr
    for arguments in ([], ["--what"], ["a", "b"]):
        result = run_report(*arguments)
        assert (result.returncode, result.stderr.count("\n")) == (64, 1)
        assert "--help" in result.stderr


def test_unwritable_place(tmp_path):
    folder = make_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    result = run_report(folder, "--output", tmp_path / "file" / "below")
    assert result.returncode == 73
    assert "--no-files" in result.stderr and result.stderr.count("\n") == 1
    assert run_report(folder, "--no-files").returncode == 0
    assert not (folder / "report.html").exists()


def test_full_disk(tmp_path):
    """A limit of the size of files stands for it: writing fails, and the error names no file by itself."""
    folder = make_run(tmp_path / "run")
    result = subprocess.run(
        [sys.executable, REPORT, folder], capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )  # fmt: skip
    assert result.returncode == 73
    assert result.stderr.startswith(f"report: {folder}/report.html: File too large; choose another folder")
    assert not any("report" in path.name for path in folder.iterdir())


def test_a_home_that_cannot_be_written_leaves_no_folder(tmp_path):
    folder, temporary = make_run(tmp_path / "run"), tmp_path / "temporary"
    temporary.mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("MPLCONFIGDIR", "XDG_CACHE_HOME")}
    result = subprocess.run(
        [sys.executable, str(REPORT), folder], capture_output=True, text=True, timeout=120,
        env={**environment, "HOME": str(tmp_path / "none"), "TMPDIR": str(temporary)},
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert (folder / "report.png").stat().st_size > 10_000
    assert list(temporary.iterdir()) == []


def test_run_in_progress(tmp_path):
    """The last line is being written, the loss was not finite once, there is no validation and no sample."""
    folder = make_run(tmp_path / "run", [update(1), update(2, loss=None, applied=False), update(3)])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step":4,"sam')
    (folder / "status.json").unlink()
    run = read_run(folder)
    assert [line["step"] for line in run.updates] == [1, 2, 3]
    assert not run.finished and run.result_folder is None
    lines = list(terminal.report_lines(run, commands.next_commands(run, "lorascale")))
    assert "no validation set was given" in lines[0]
    assert any("1 updates were not finite" in line for line in lines)
    assert any("train" in line and str(folder / "config.yaml") in line for line in lines)
    assert "not finished" in page.render(run, [])
    result = run_report(folder)
    assert result.returncode == 0, result.stderr


def test_world_size_that_changed(tmp_path):
    lines = [update(step, world_size=2 if step < 4 else 3 if step < 7 else 1) for step in range(1, 11)]
    run = read_run(make_run(tmp_path / "run", lines))
    assert dict(facts.facts(run))["took"].startswith("5 s of updates on 2, then 3, then 1 rank(s)")


def test_an_update_has_one_loss(tmp_path):
    """Each line of the trace is one update, with its own loss and validation: what metrics.jsonl says."""
    lines = [update(step, **({"val_loss": 9.0 - step / 10} if step % 4 == 0 else {})) for step in range(1, 22)]
    run = read_run(make_run(tmp_path / "run", lines))
    rows = facts.trace(run, 4)
    assert [row.step for row in rows] == [1, 4, 8, 16, 20, 21]  # of the validated ones four, and both ends
    for row in rows:
        assert row.loss == 3.0 / row.step
        assert row.validation == (9.0 - row.step / 10 if row.step % 4 == 0 else None)
    run = read_run(make_run(tmp_path / "none", [update(step, loss=None if step == 5 else 3.0 / step) for step in range(1, 10)]))
    assert [(row.step, row.loss) for row in facts.trace(run, 3)] == [(1, 3.0), (5, None), (9, 3.0 / 9)]
    # The headline, the trace and the page speak of the same two numbers.
    assert facts.headline(run) == "training loss 3.0000 -> 0.3333; no validation set was given"
    assert re.findall(r"^ +9 +\d+ +([0-9.]+)", "\n".join(terminal.report_lines(run, [])), re.M) == ["0.3333"]
    assert ">0.3333<" in page.render(run, [])
    assert [row.step for row in facts.trace(read_run(make_run(tmp_path / "one", [update(1)])), 5)] == [1]


@pytest.mark.parametrize(
    ("losses", "kept", "says"),
    [
        ({0: 2.0, 5: 2.5, 10: 3.0}, False, "2.0000 before the first update: nothing that was trained is better"),
        ({0: 2.0, 5: 1.0, 10: 3.0}, True, "1.0000 after step 5 (kept in FOLDER/best)"),
        ({0: 2.0, 5: 1.0, 10: 3.0}, False, "1.0000 after step 5"),  # best/ was taken away
    ],
)
def test_best_names_what_is_there(tmp_path, losses, kept, says):
    lines = [{"step": 0, "samples": 0, "val_loss": losses[0]}]
    lines += [update(step, **({"val_loss": losses[step]} if step in losses else {})) for step in range(1, 11)]
    folder = make_run(tmp_path / "run", lines)
    if kept:
        (folder / "best").mkdir()
    run = read_run(folder)
    best = dict(facts.facts(run))["best"]
    assert best.startswith(says.replace("FOLDER", str(folder)))
    assert kept == ("kept in" in best)
    for text in (page.render(run, []), "\n".join(terminal.report_lines(run, []))):
        assert (str(folder / "best") in text) == kept


def test_an_answer_stands_apart_from_its_question(tmp_path):
    """The trainer writes a line end before an answer, as its prompt ended before it; a continuation goes on in the line."""
    folder = make_run(
        tmp_path / "run",
        samples__after_txt="> What is the capital of Italy?\nWhat is the capital of Italy?\nAhoy! Rome.\n\n> The\nThe sea\n\n",
    )
    run = read_run(folder)
    text = page.render(run, [])
    assert "of Italy?</span>\nAhoy! Rome.</div>" in text and "The</span> sea</div>" in text
    lines = list(terminal.report_lines(run, []))
    assert "  after   Ahoy! Rome." in lines and "  after    sea" in [line.rstrip() for line in lines]


@pytest.mark.parametrize(
    "pairs",
    [
        [("And", " the LORD")],
        [("And", ""), ("In the ", "beginning\n\nof all\n"), ("x", " > y\n> z\n> .")],
        [("two\nlines", "\nand more"), ("two", "\ntwo")],
        [("aa", "aa\naa")],
        [("Ünï", "cödé \u2028 \U0001f642")],
    ],
)
def test_samples_are_read_as_they_were_written(tmp_path, pairs):
    # The form that the trainer writes.
    text = "".join(f"> {prompt}\n{prompt}{more}\n\n" for prompt, more in pairs)
    (tmp_path / "before.txt").write_text(text)
    read = [(sample.prompt, sample.continuation) for sample in read_samples(tmp_path / "before.txt")]
    assert read == [(prompt, more.rstrip("\n")) for prompt, more in pairs]


def test_samples_of_any_bytes(tmp_path):
    for content in (b"", b"> ", b"> a", b"\xff\xfe\n> \xff\n\xff\x00\n\n", b"no sample at all\n"):
        (tmp_path / "x.txt").write_bytes(content)
        read_samples(tmp_path / "x.txt")
    assert read_samples(tmp_path / "absent.txt") == []


def test_terminal_without_unicode(tmp_path):
    run = read_run(make_run(tmp_path / "run", samples__before_txt="> ä\näö\n\n"))
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    terminal.print_report(run, [], stream=out)
    out.flush()
    text = out.buffer.getvalue().decode("ascii")
    assert "#" in text and 'prompt  "?"' in text


def test_sparkline():
    assert terminal.sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == terminal.BARS
    assert terminal.sparkline([5.0] * 9, 3) == terminal.BARS[0] * 3
    assert terminal.sparkline([1, None, 2], 3) == terminal.BARS[0] + " " + terminal.BARS[-1]
    assert terminal.sparkline([None, None], 3) == ""


def test_smoothed_is_a_mean_around_each_value():
    values = [float(step * step) for step in range(50)]
    means = smoothed(values, 0.1)  # two to each side
    assert means[0] == values[0] and means[-1] == values[-1]
    assert means[1] == pytest.approx(sum(values[0:3]) / 3)
    assert means[20] == pytest.approx(sum(values[18:23]) / 5)
    assert smoothed([None, 1.0, None, 3.0], 0.0) == [None, 1.0, None, 3.0]


def test_ticks_are_round_and_inside():
    assert chart.ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert chart.ticks(3, 3, 5) == [3]
    for low, high in ((1.17, 5.6), (0, 4e-3), (-7, 1e6), (0.5, 0.51)):
        ticks = chart.ticks(low, high, 6)
        assert 2 <= len(ticks) <= 7 and all(low - 1e-9 * high <= tick <= high * (1 + 1e-9) for tick in ticks)


def test_thinned_keeps_ends_and_spikes():
    points = [(x, math.sin(x / 50)) for x in range(20_000)]
    points[12_345] = (12_345, 9.0)
    few = chart.thinned(points)
    assert len(few) <= 700 and few[0] == points[0] and few[-1] == points[-1]
    assert points[12_345] in few
    assert [x for x, _ in few] == sorted({x for x, _ in few})


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89.2, "89 s"), (150, "2 min 30 s"), (8000, "2 h 13 min")])
def test_duration(seconds, text):
    assert words.duration(seconds) == text


def test_pieces_without_a_target_are_counted(tmp_path):
    folder = make_run(tmp_path / "run")
    assert read_run(folder).left_out is None
    plan = {"step": 0, "samples": 0, "kind": "plan", "reason": "x",
            "inputs": {"recipe": {"data.pieces_left_out": 18, "data.pieces": 20}}}
    (folder / "decisions.jsonl").write_text(json.dumps(plan) + "\n")
    run = read_run(folder)
    assert run.left_out == (18, 20)
    assert ("left out", "18 of 20 pieces of its documents, which have no target") in facts.facts(run)


def test_answers_go_with_their_prompts_where_prompts_changed_on_the_way():
    samples = [[Sample("a", "1"), Sample("b", "2")], [Sample("b", "4"), Sample("c", "5")]]
    run = types.SimpleNamespace(before=samples[0], after=samples[1])
    assert facts.sample_pairs(run) == [("a", "1", None), ("b", "2", "4")]
    run = types.SimpleNamespace(before=samples[0], after=[Sample("a", "3"), Sample("b", "4")])
    assert facts.sample_pairs(run) == [("a", "1", "3"), ("b", "2", "4")]
    assert facts.sample_pairs(types.SimpleNamespace(before=[], after=samples[1])) == [("b", None, "4"), ("c", None, "5")]
