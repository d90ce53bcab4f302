"""The judge of pictures on a set of a few shapes: it learns them, says how well, and tells what pictures show."""

import dataclasses
import re

import emoji
import emoji_looks
import judge_material
import judge_network
import judge_pictures
import numpy
import pytest
import torch
from emoji_ink import ink_drawing
from emoji_names import Noun
from PIL import Image, ImageDraw, PngImagePlugin
from test_report import make_run, update

SIZE = 32
CROSSED, BESIDE = ((54, 10, 74, 118), (10, 54, 118, 74)), ((10, 40, 58, 88), (70, 40, 118, 88))
SHAPES = {
    "a disc": lambda pen: pen.ellipse((20, 20, 108, 108), fill=(214, 60, 40, 255)),
    "a bar": lambda pen: pen.rectangle((10, 54, 118, 74), fill=(40, 120, 60, 255)),
    "a roof": lambda pen: pen.polygon([(64, 20), (118, 104), (10, 104)], fill=(90, 60, 200, 255)),
    "a cross": lambda pen: [pen.rectangle(box, fill=(220, 160, 40, 255)) for box in CROSSED],
    "a pair": lambda pen: [pen.ellipse(box, fill=(60, 160, 200, 255)) for box in BESIDE],
    "a frame": lambda pen: pen.rectangle((20, 20, 108, 108), outline=(200, 80, 150, 255), width=14),
}
ASKED = ("a disc", "a cross")


def shape(phrase):
    picture = Image.new("RGBA", (128, 128))
    SHAPES[phrase](ImageDraw.Draw(picture))
    return picture


class Shapes:
    """In the place of emoji.Emoji."""

    def __init__(self, roots=None):
        self.pictures = {Noun(phrase, phrase, ()): shape(phrase) for phrase in SHAPES}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge") / "set"
    folder.mkdir()
    looks = ((phrase, look) for phrase in SHAPES for look in emoji_looks.looks_of(shape(phrase), phrase, SIZE))
    emoji.write_pictures(folder / "base", (
        (f"{phrase.replace(' ', '-')}-{name}", emoji_looks.caption_of(phrase, words, True), shown)
        for phrase, (name, words, shown) in looks
    ))  # fmt: skip
    drawing = ("a-roof", "sumi, a roof", ink_drawing(shape("a roof"), SIZE))
    emoji.write_pictures(folder / "style", [drawing])
    (folder / "held-out.txt").write_text("".join(f"{phrase}\n" for phrase in ASKED))
    (folder / "trigger.txt").write_text("sumi\n")
    return folder


@pytest.fixture
def judge(data, tmp_path, monkeypatch, capsys):
    """A runner with quick settings: (exit code, standard output, standard error)."""
    settings = dataclasses.replace(judge_network.Settings(), layers=((12, 2), (24, 2), (24, 2)), updates=300, batch=16)
    monkeypatch.setattr(judge_network, "Settings", lambda: settings)
    monkeypatch.setattr(judge_material, "ONE_IN", 2)
    monkeypatch.setattr(judge_material, "KEPT", 2)
    monkeypatch.setattr(emoji, "Emoji", Shapes)
    monkeypatch.setattr(emoji, "fetched", lambda cache: {})

    def run(folder, *options):
        threads = torch.get_num_threads()
        options = (folder, "--data", data, "--packages", tmp_path / "packages", *options)
        code = judge_pictures.main([str(option) for option in options])
        torch.set_num_threads(threads)
        return code, *capsys.readouterr()

    return run


def save(path, picture, prompt):
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", f"{prompt}\nSteps: 20, Sampler: ddim, CFG scale: 4, Seed: 7, Size: 32x32, Model: small")
    path.parent.mkdir(exist_ok=True)
    picture.save(path, pnginfo=text)


def plain(phrase):
    return emoji_looks.on_ground(emoji_looks.fitted(shape(phrase), SIZE))


def make_samples(folder):
    """Before training all in colour; after it the disc and the cross in ink, but a bar for the frame."""
    make_run(folder, [{"step": 0, "samples": 0, "val_loss": 0.5}, update(1), update(2)])
    prompts = ["sumi, a disc", "sumi, a cross", "sumi, a frame", "a disc", "a yeti"]
    for number, prompt in enumerate(prompts):
        noun = prompt.removeprefix("sumi, ").replace("yeti", "bar")
        save(folder / f"samples/before-{number:02}.png", plain(noun), prompt)
        after = ink_drawing(shape(noun.replace("frame", "bar")), SIZE) if "sumi" in prompt else plain(noun)
        save(folder / f"samples/after-{number:02}.png", after, prompt)
    return folder


def test_a_run(judge, data, tmp_path):
    folder = make_samples(tmp_path / "run")
    code, out, err = judge(folder)
    assert code == 0, err
    assert "learning to judge, update 300 of 300: loss " in err
    assert "passed over: 1 prompts that name no noun, such as 'a yeti'" in err
    assert "The judge knows 6 nouns." in out
    worth = r"the noun first in \d+ %, among 2 in \d+ %; ink or not in \d+ %$"
    assert re.search(rf"^  6 looks in colour, whole: {worth}", out, re.M)
    assert re.search(rf"^  \d ink drawings, of nouns that it knows in colour alone, distorted: {worth}", out, re.M)
    rows = {match[1]: match.groups()[1:] for match in re.finditer(
        r"^  (\S.*?)  +(first|number \d(?:, lost)?)  +(a \w+)  +(\d+) %  +(\d+) %$", out, re.M)}  # fmt: skip
    assert set(rows) == {"sumi, a disc", "sumi, a cross", "sumi, a frame", "a disc"}
    for prompt in ("sumi, a disc", "sumi, a cross", "a disc"):
        assert rows[prompt][:2] == ("first", prompt.removeprefix("sumi, "))
        assert (int(rows[prompt][3]) > 50) == ("sumi" in prompt)
    assert rows["sumi, a frame"][1] == "a bar"
    before, after = out.splitlines()[-2:]
    assert re.fullmatch(r"before training: content kept in 3 of 3 with the trigger \(first in \d\); ink in 0 of 3; "
                        r"without the trigger ink in 0 of 1, content in 1", before)  # fmt: skip
    assert re.fullmatch(r"after training: content kept in \d of 3 with the trigger \(first in 2\); ink in 3 of 3; "
                        r"without the trigger ink in 0 of 1, content in 1", after)  # fmt: skip

    # It is learned once for these pictures, and again for others.
    assert judge(folder) == (0, out, "judge: passed over: 1 prompts that name no noun, such as 'a yeti'\n")
    pictures = sorted((data / "base").glob("a-bar-*.png"))
    kept = pictures[0].read_bytes()
    Image.new("RGB", (SIZE, SIZE)).save(pictures[0])
    assert "learning to judge" in judge(folder)[2]
    pictures[0].write_bytes(kept)
    assert len(list((data / "judge").glob("*.safetensors"))) == 2
    assert "learning" not in judge(folder)[2]


def test_a_folder_of_pictures(judge, tmp_path):
    """Of other sizes, too; prompts are not trusted to leave the terminal alone."""
    save(tmp_path / "some/one.png", ink_drawing(shape("a cross"), 96), "sumi, a cross, \x1b[31m")
    save(tmp_path / "some/two.png", plain("a disc"), "a disc, small")
    code, out, _ = judge(tmp_path / "some")
    assert code == 0 and "\x1b" not in out
    assert out.splitlines()[-1] == (
        "content kept in 1 of 1 with the trigger (first in 1); ink in 1 of 1; "
        "without the trigger ink in 0 of 1, content in 1"
    )


def test_what_is_kept_from_it(data, monkeypatch):
    monkeypatch.setattr(judge_material, "ONE_IN", 1)  # all but those that are asked for
    monkeypatch.setattr(emoji, "Emoji", Shapes)
    monkeypatch.setattr(emoji, "fetched", lambda cache: {})
    material = judge_material.material_of(data, None)
    assert material.nouns == list(SHAPES) and (material.size, material.trigger) == (SIZE, "sumi")
    looks = [shown for shown in material.pictures if not shown.ink]
    assert len(looks) == len(emoji.captions_of(data / "base"))
    assert sorted(shown.noun for shown in looks if shown.kept) == list(range(len(SHAPES)))
    assert not any(shown.kept and shown.path.name.endswith(("-plain.png", "-small.png")) for shown in looks)
    drawings = {material.nouns[shown.noun]: shown.kept for shown in material.pictures if shown.ink}
    assert drawings == {noun: noun not in (*ASKED, "a roof") for noun in SHAPES}


def test_distorted_pictures_are_the_same_for_a_seed():
    pictures = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one, two = (judge_network.distorted(pictures, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and one.shape == pictures.shape
    assert 0 <= one.min() and one.max() <= 1
    assert all(not torch.allclose(a, b, atol=0.1) for a, b in zip(one, pictures, strict=True))
    flat = torch.full((4, 3, 32, 32), 0.5)  # nothing to move, blur or cover: light and noise alone
    assert (judge_network.distorted(flat, torch.Generator().manual_seed(3)) - 0.5).abs().mean() < 0.15


def test_refusals(judge, data, tmp_path):
    assert judge(tmp_path / "nowhere") == (
        65, "", f"judge: {tmp_path}/nowhere is no folder; give a run's, or one with PNG files\n",
    )  # fmt: skip
    (tmp_path / "empty").mkdir()
    assert judge(tmp_path / "empty")[2].endswith("holds no pictures; give a run's folder, or one with PNG files\n")
    (tmp_path / "empty/cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert judge(tmp_path / "empty") == (65, "", f"judge: {tmp_path}/empty/cut.png is cut off; remove it\n")
    (tmp_path / "other").mkdir()
    Image.fromarray(numpy.zeros((8, 8, 3), numpy.uint8)).save(tmp_path / "other/silent.png")
    code, out, err = judge(tmp_path / "other", "--data", tmp_path / "empty")
    assert (code, out) == (65, "") and "is not whole" in err and "emoji.py --output makes it" in err
    assert judge(tmp_path / "other") == (
        65, "", "judge: passed over: 1 prompts that name no noun, such as ''\n"
        f"judge: {tmp_path}/other: no prompt names a noun of {data}; give its pictures with --data\n",
    )  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        judge(tmp_path, "--what")
    assert ended.value.code == 64
