"""The report of a run that makes pictures: they are shown by prompt, before and after and in order of updates, and files
that are no pictures of the run are named and left out."""

import base64
import html.parser
import io
import json
import os
import re
import struct
import zlib

import numpy as np
import pytest
from lorascale_report import commands, facts, page, picture, terminal
from lorascale_report.pictures import data_uri
from lorascale_report.run_folder import read_run
from PIL import Image
from test_report import make_run, run_report, update

SETTINGS = "Steps: 20, Sampler: ddim, CFG scale: 7.5, Seed: 7, Size: 64x48, Model: sd15"
NOISE = [1.2, 0.4, 0.2, 0.1]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(text, color, size=(64, 48)):
    """As the trainer writes it: RGB, rows by filter 2, the text before the picture."""
    row = b"\2" + bytes(color) * size[0]
    data = row + (b"\2" + bytes(3 * size[0])) * (size[1] - 1)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))]
    if text is not None:
        plain = text.isascii()
        parts.append(chunk(b"tEXt" if plain else b"iTXt", b"parameters\0" + (b"" if plain else bytes(4)) + text.encode()))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def parameters(prompt, negative=None, settings=SETTINGS):
    return f"{prompt}\n" + (f"Negative prompt: {negative}\n" if negative is not None else "") + settings


def noise_run(folder, pictures=(), steps=10):
    """`pictures`: (file, bytes)."""
    lines = [{"step": 0, "samples": 0, "val_loss": 0.5, **{f"val_loss_t{i}": v for i, v in enumerate(NOISE, 1)}}]
    for step in range(1, steps + 1):
        line = update(step, images=16, loss_t1=1.0, loss_t3=None)
        if step % 5 == 0:
            line |= {"val_loss": 0.5 - step / 100, **{f"val_loss_t{i}": v / (1 + step / 10) for i, v in enumerate(NOISE, 1)}}
        del line["tokens"]
        lines.append(line)
    make_run(folder, lines)
    (folder / "samples").mkdir()
    for name, data in pictures:
        (folder / "samples" / name).write_bytes(data)
    return folder


class Images(html.parser.HTMLParser):
    """The prompts of a page and under each the captions of its pictures, with them."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self._in, self._data = [], [], None, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        if tag in ("h3", "figcaption"):
            self._in, self._data = tag, ""
        if tag == "img":
            self._image = attrs["src"]

    def handle_data(self, data):
        self._data += data

    def handle_endtag(self, tag):
        if tag == "h3" and self._in == tag:
            self.rows.append((self._data, []))
        if tag == "figcaption" and self._in == tag and getattr(self, "_image", None):
            self.rows[-1][1].append((self._data, decoded(self._image)))
            self._image = None
        self._in = None


def decoded(uri):
    kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.*)", uri).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data)), formats=[kind.upper()])
    return image.convert("RGB")


def color_of(image):
    return tuple(int(v) for v in np.asarray(image).reshape(-1, 3).mean(0).round())


TWO = [
    (f"{when}-{number:02}.png", png(parameters(*prompt), (10 * step, 100, 50 * number)))
    for number, prompt in enumerate([("a cat",), ("ein Häuschen, 猫", "blurry")])
    for when, step in (("before", 0), ("step-00000002", 2), ("step-00000010", 10), ("after", 12))
]


def test_each_prompt_has_before_and_after_and_its_course(tmp_path):
    folder = noise_run(tmp_path / "run", TWO, steps=12)
    (folder / "adapter").mkdir()
    result = run_report(folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(rf"^  samples     8 pictures of 2 prompts in {folder}/samples$", result.stdout, re.M)
    assert "not shown" not in result.stdout
    assert f"generate {folder}/config.yaml --prompt 'a cat' --output picture.png" in result.stdout
    text = (folder / "report.html").read_text()
    shown = Images(text)
    assert [prompt for prompt, _ in shown.rows] == ["a cat", "ein Häuschen, 猫"]
    course = ["before training", "update 2", "update 10", "after training"]
    for number, (_, pictures) in enumerate(shown.rows):
        assert [name for name, _ in pictures] == [course[0], course[-1], *course]
        assert [color_of(image) for _, image in pictures] == [(10 * s, 100, 50 * number) for s in (0, 12, 0, 2, 10, 12)]
    assert text.count(SETTINGS) == 2 and text.count("Negative prompt: blurry") == 1
    assert "script" not in shown.tags and not re.search(r'(src|href)="(?!data:)', text)
    assert Image.open(folder / "report.png").height > 1.2 * Image.open(io.BytesIO(curves_alone(tmp_path))).height


def curves_alone(tmp_path):
    return picture.render(read_run(noise_run(tmp_path / "alone", steps=12)))


def test_the_loss_is_an_error_and_no_perplexity(tmp_path):
    run = read_run(noise_run(tmp_path / "run"))
    said = dict(facts.facts(run))
    assert said["validation"] == "0.5000 -> 0.4000 mean squared error"
    assert said["by noise"] == "little: 1.2000 -> 0.6000; more: 0.4000 -> 0.2000; 0.2000 -> 0.1000; most: 0.1000 -> 0.0500"
    assert "samples" not in said
    text = page.render(run, [])
    assert text.count("<svg") == 4
    assert re.findall(r"<title>most noise, update (\d+): ([0-9.]+)</title>", text) == [("0", "100.0000"), ("5", "66.6667"), ("10", "50.0000")]
    for shown in (text, "\n".join(terminal.report_lines(run, commands.next_commands(run, "lorascale")))):
        assert not re.search("token|perplexity|nats|What it", shown)


def test_the_adapter_at_several_strengths(tmp_path):
    """Its prompts and strengths are those that the trainer wrote into it; a damaged one is named."""
    of = ", LoRA: my run at 2/adapter at 0, 0.4, 1"
    text = "\n".join(parameters(*prompt) + of for prompt in [("a <cat>", "blurry"), ("猫",)])
    folder = noise_run(tmp_path / "run", [*TWO, ("strengths.png", png(text, (1, 2, 3), (192, 96)))])
    run = read_run(folder)
    shown = page.render(run, [])
    (heading, pictures), = [row for row in Images(shown).rows if "strengths" in row[0]]
    assert [name for name, _ in pictures] == ["0, 0.4, 1, from left to right"]
    assert pictures[0][1].size == (192, 96) and color_of(pictures[0][1]) == (1, 2, 3)
    assert "Downwards: a &lt;cat&gt;; 猫" in shown and len(Images(shown).rows) == 3
    assert run.pictures.count == 8
    (folder / "samples/strengths.png").write_bytes(png(text, (1, 2, 3))[:-20])
    run = read_run(folder)
    assert len(Images(page.render(run, [])).rows) == 2
    assert ("not shown", f"{folder}/samples/strengths.png is cut off") in list(facts.facts(run))


def test_a_quarter_without_a_loss_is_no_curve(tmp_path):
    folder = noise_run(tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines[0]["val_loss_t2"], lines[5]["val_loss_t3"] = 0.0, None
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(folder)
    assert [(name, [step for step, _ in points]) for name, points in facts.noise_curves(run)] == [
        ("little noise", [0, 10]), ("3rd quarter", [0, 10]), ("most noise", [0, 10]),
    ]  # fmt: skip
    assert page.render(run, []).count("<svg") == 4


def test_a_run_that_goes_on_shows_what_is_newest(tmp_path):
    folder = noise_run(tmp_path / "run", [item for item in TWO if "after" not in item[0]], steps=12)
    (folder / "status.json").unlink()
    text = page.render(read_run(folder), [])
    assert [name for name, _ in Images(text).rows[0][1]] == ["before training", "update 10", *("before training", "update 2", "update 10")]
    assert "so far" in text and "after training" not in text
    # Of a run that ended, and goes on: what was its end is not now.
    (folder / "samples/after-00.png").write_bytes(TWO[3][1])
    names = [name for name, _ in Images(page.render(read_run(folder), [])).rows[0][1]]
    assert names[:2] == ["before training", "update 10"] and names[-1] == "after an earlier end"


def test_only_the_same_settings_stand_side_by_side(tmp_path):
    other = parameters("a cat", settings=SETTINGS.replace("Seed: 7", "Seed: 8"))
    folder = noise_run(tmp_path / "run", [*TWO[:2], ("after-00.png", png(other, (0, 0, 0)))])
    rows = Images(page.render(read_run(folder), [])).rows
    assert [[name for name, _ in pictures] for _, pictures in rows] == [["before training", "update 2"], ["after training"]]


def damaged(data, at=-40):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


GOOD = png(parameters("a cat"), (200, 30, 30))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"GIF89a" + bytes(50), "is no PNG file"),
        (GOOD[:60], "is cut off"),
        (GOOD[:-1], "is cut off"),
        (GOOD[:8] + struct.pack(">I", 0xFFFFFFFF) + GOOD[12:], "is cut off"),
        (GOOD[:8] + GOOD[33:], "is no PNG file"),
        (GOOD[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + GOOD[24:], "says to be 2147483647 x 2147483647 pixels; at most 8192 a side"),
        (GOOD[:16] + struct.pack(">II", 0, 5) + GOOD[24:], "says to be 0 x 5 pixels"),
        (damaged(GOOD), "is damaged ("),
        (GOOD.replace(b"IDAT", b"iDAT"), "is damaged ("),
        (GOOD[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 8192, 8192, 8, 2, 0, 0, 0)) + GOOD[33:], "is damaged ("),
    ],
)
def test_a_damaged_picture_is_named_and_left_out(tmp_path, data, says):
    folder = noise_run(tmp_path / "run", [*TWO, ("step-00000004-00.png", data)])
    run = read_run(folder)
    text = page.render(run, [])
    lines = list(terminal.report_lines(run, []))
    named = [line for line in lines if "not shown" in line]
    assert len(named) == 1 and f"  not shown   {folder}/samples/step-00000004-00.png {says}" in named[0]
    assert any("8 pictures of 2 prompts" in line for line in lines)
    assert says in text and [len(pictures) for _, pictures in Images(text).rows] == [6, 6]


@pytest.mark.parametrize("size", [(8192, 1), (1, 8192), (1, 1)])
def test_pictures_of_odd_shapes(tmp_path, size):
    data = png(parameters("a line"), (1, 2, 3), size)
    run = read_run(noise_run(tmp_path / "run", [("before-00.png", data), ("after-00.png", data)]))
    (_, pictures), = Images(page.render(run, [])).rows
    assert [image.size for _, image in pictures] == [tuple(min(side, 512) for side in size)] * 2
    assert Image.open(io.BytesIO(picture.render(run))).height < 2000


def test_any_bytes_are_a_picture_or_are_not(tmp_path):
    """Flipped bytes at random places; nothing but what the report can name comes of them."""
    rng, whole = np.random.default_rng(0), TWO[4][1]
    folder = noise_run(tmp_path / "run")
    for number in range(300):
        data = bytearray(whole)
        for at in rng.integers(8, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        (folder / f"samples/after-{number:03}.png").write_bytes(data)
    run = read_run(folder)
    made = [run.pictures.small(p, 64) for row in run.pictures.rows for p in row.pictures]
    assert len(run.pictures.damaged) > 250 and len(made) - made.count(None) + len(run.pictures.damaged) == 300
    page.render(run, [])


def test_what_is_no_file_and_what_is_not_of_the_run(tmp_path):
    folder = noise_run(tmp_path / "run", [*TWO, ("mine.png", b"x"), ("step-x-00.png", b"x"), ("before-00.txt", b"x")])
    samples = folder / "samples"
    os.mkfifo(samples / "after-07.png")  # which would never end
    (samples / "after-08.png").mkdir()
    (samples / "after-09.png").symlink_to("nowhere")
    for name in (f"step-{step:08}-03.png" for step in range(6)):
        (samples / name).write_bytes(b"")
    lines = [value for name, value in facts.facts(read_run(folder)) if name == "not shown"]
    assert [re.sub(r".*samples/", "", line) for line in lines] == [
        "after-07.png is no file", "after-08.png is no file", "after-09.png cannot be read (No such file or directory)",
        "step-00000000-03.png is empty", "step-00000001-03.png is empty", "4 more files of that folder",
    ]  # fmt: skip


def test_texts_of_pictures_are_not_trusted(tmp_path):
    texts = [
        None, "", "no settings at all", "\n" + SETTINGS, "two\nlines\nNegative prompt: no\nnot this\n" + SETTINGS,
        '"><script>alert(1)</script>\x1b]0;x\x07\u202e\n' + SETTINGS, "$x_{" + "w" * 5000, "Negative prompt: x\n" + SETTINGS,
    ]  # fmt: skip
    folder = noise_run(
        tmp_path / "run",
        [(f"{when}-{i:02}.png", png(text, (9, 9, 9))) for i, text in enumerate(texts) for when in ("before", "after")],
    )
    run = read_run(folder)
    parts = [(row.first.prompt[:20], row.first.negative, row.first.settings) for row in run.pictures.rows]
    assert parts[:5] == [
        ("", "", ""), ("", "", ""), ("no settings at all", "", ""), ("", "", SETTINGS), ("two\nlines", "no\nnot this", SETTINGS),
    ]  # fmt: skip
    assert parts[7] == ("Negative prompt: x", "", SETTINGS)
    (folder / "adapter").mkdir()
    text = page.render(run, commands.next_commands(run, "lorascale"))
    shown = Images(text)
    assert "script" not in shown.tags and not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
    assert shown.rows[0][0] == "(an empty prompt)" and max(len(prompt) for prompt, _ in shown.rows) < 500
    out = "\n".join(terminal.report_lines(run, commands.next_commands(run, "lorascale")))
    assert "\x1b" not in out
    for at in (0, 3, 6):
        run.pictures.rows = run.pictures.rows[at:] + run.pictures.rows[:at]
        assert picture.render(run)


def test_many_large_pictures_make_a_page_of_some_megabytes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (600, 900, 3), dtype=np.uint8)).save(out, "png", compress_level=1)
    data, head = out.getvalue(), 33
    folder = noise_run(tmp_path / "run", steps=40)
    for number in range(20):
        whole = data[:head] + chunk(b"tEXt", b"parameters\0" + parameters(f"prompt {number}").encode()) + data[head:]
        for when in ("before", "after") if number else ("before", *(f"step-{step:08}" for step in range(1, 40)), "after"):
            (folder / "samples" / f"{when}-{number:02}.png").write_bytes(whole)
    run = read_run(folder)
    text = page.render(run, [])
    rows = Images(text).rows
    assert len(text) < 2 << 20
    assert len(rows[0][1]) == 2 + 16 and [name for name, _ in rows[0][1]][-1] == "after training"
    assert max(max(image.size) for _, pictures in rows for _, image in pictures) == 256
    assert len(rows) == 16 and "4 more prompts are in" in text and "<summary>12 more prompts</summary>" in text
    monkeypatch.setattr(page, "MOST_BYTES", 400_000)
    text = page.render(run, [])
    assert len(text) < 450_000 and 1 < len(Images(text).rows) < 16
    assert f"{20 - len(Images(text).rows)} more prompts are in" in text


def test_a_drawing_stays_exact_and_a_photograph_small():
    drawing = Image.new("RGB", (200, 200), (255, 0, 0))
    assert data_uri(drawing).startswith("data:image/png;") and color_of(decoded(data_uri(drawing))) == (255, 0, 0)
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    assert data_uri(photograph).startswith("data:image/jpeg;")
