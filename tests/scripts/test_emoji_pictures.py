"""The captioned emoji: names, looks, drawings, the part of CLIP's vocabulary, and all of it with made pictures."""

import json
import os
from pathlib import Path

import clip_vocabulary
import emoji
import emoji_font
import emoji_ink
import emoji_looks
import emoji_names
import numpy
import pytest
from captioned import MERGES, tokenizer_folder
from deb_packages import PackageError
from lorascale_captions import tokenizing, vocabulary
from PIL import Image, ImageChops, ImageDraw, ImageOps

NAMES = """\
# emoji-test.txt
# group: Smileys & Emotion
# subgroup: face-smiling
1F600                                                  ; fully-qualified     # 😀 E1.0 grinning face
1F603                                                  ; fully-qualified     # 😃 E0.6 grinning face with big eyes
# subgroup: heart
2764 FE0F                                              ; fully-qualified     # ❤️ E0.6 red heart
2764                                                   ; unqualified         # ❤ E0.6 red heart
# group: People & Body
# subgroup: person-role
1F9D1 200D 1F33E                                       ; fully-qualified     # 🧑‍🌾 E12.1 farmer
1F9D1 1F3FB 200D 1F33E                                 ; fully-qualified     # 🧑🏻‍🌾 E12.1 farmer: light skin tone
1F468 200D 1F33E                                       ; fully-qualified     # 👨‍🌾 E4.0 man farmer
1F6B6                                                  ; fully-qualified     # 🚶 E0.6 person walking
1F6B6 200D 2640 FE0F                                   ; fully-qualified     # 🚶‍♀️ E4.0 woman walking
1F6B6 200D 2640                                        ; minimally-qualified # 🚶‍♀ E4.0 woman walking
1F483                                                  ; fully-qualified     # 💃 E0.6 woman dancing
1F471                                                  ; fully-qualified     # 👱 E0.6 person: blond hair
# group: Component
# subgroup: skin-tone
1F3FB                                                  ; component           # 🏻 E1.0 light skin tone
# group: Animals & Nature
# subgroup: animal-mammal
1F408                                                  ; fully-qualified     # 🐈 E0.7 cat
1F408 200D 2B1B                                        ; fully-qualified     # 🐈‍⬛ E13.0 black cat
1F418                                                  ; fully-qualified     # 🐘 E0.6 elephant
# group: Objects
# subgroup: clothing
1F453                                                  ; fully-qualified     # 👓 E0.6 glasses
1F462                                                  ; fully-qualified     # 👢 E0.6 woman’s boot
1F4BF                                                  ; fully-qualified     # 💿 E0.6 optical disk
# group: Symbols
# subgroup: alphanum
1F170 FE0F                                             ; fully-qualified     # 🅰️ E0.6 A button (blood type)
# group: Flags
# subgroup: flag
1F3C1                                                  ; fully-qualified     # 🏁 E0.6 chequered flag
"""
LIST = ["face-smiling: grinning face", "heart:", "- optical disk", "woman dancing = a dancer"]
PHRASES = ["a grinning face", "a farmer", "a person walking", "a dancer", "a cat", "a black cat", "an elephant", "glasses",
           "a woman's boot"]  # fmt: skip


def test_names():
    exceptions = emoji_names.exceptions_of(LIST)
    nouns = emoji_names.nouns_of(NAMES, exceptions)
    assert [noun.phrase for noun in nouns] == PHRASES
    assert nouns[1].codes == (0x1F9D1, 0x200D, 0x1F33E) and nouns[1].file == "a-farmer"
    assert nouns[-1].name == "woman's boot" and nouns[-1].file == "a-woman-s-boot"
    assert emoji_names.unknown(exceptions, NAMES) == []
    strange = emoji_names.exceptions_of(["- what", "nothing = a thing", "no-such: cat, dog"])
    assert emoji_names.unknown(strange, NAMES) == ["what", "nothing", "dog", "no-such"]
    with pytest.raises(emoji_names.NamesError, match="says nothing"):
        emoji_names.exceptions_of(["what"])
    with pytest.raises(emoji_names.NamesError, match="both called 'a cat'"):
        emoji_names.nouns_of(NAMES, emoji_names.exceptions_of(["black cat = a cat"]))


@pytest.mark.parametrize(("name", "phrase"), [
    ("Christmas tree", "a christmas tree"), ("umbrella", "an umbrella"), ("unicorn", "a unicorn"), ("bus", "a bus"),
    ("compass", "a compass"), ("octopus", "an octopus"), ("cherries", "cherries"), ("eyes", "eyes"), ("shoes", "shoes"),
    ("nest with eggs", "a nest with eggs"), ("sheaf of rice", "a sheaf of rice"), ("ring buoy", "a ring buoy"),
])  # fmt: skip
def test_articles(name, phrase):
    assert emoji_names.phrase_of(name) == phrase


def test_lists():
    exceptions = emoji_names.exceptions_of(emoji_names.lines_of(emoji.HERE / "emoji-names.txt"))
    assert all(phrase != emoji_names.phrase_of(name) for name, phrase in exceptions.said.items())  # else for nothing
    assert all(phrase == phrase.lower() and phrase.isascii() for phrase in exceptions.said.values())
    style, held_out = (emoji_names.lines_of(emoji.HERE / f"emoji-{name}.txt") for name in ("style", "held-out"))
    assert len(style) == 60 and len(held_out) == 14 and len({*style, *held_out}) == 74


def thing(seed=0, box=(20, 8, 100, 120)):
    """A picture of a thing of some colours that faces left, on a clear ground."""
    generator = numpy.random.default_rng(seed)
    hue = [generator.permutation([220, 110, 40]).tolist() for _ in range(2)]
    picture = Image.new("RGBA", (136, 128))
    pen = ImageDraw.Draw(picture)
    pen.polygon([box[:2], (box[2], box[3] - 30), (box[0] + 20, box[3])], fill=(*hue[0], 255))
    pen.ellipse((box[0] + 8, box[1] + 40, box[0] + 28, box[1] + 60), fill=(*hue[1], 255))
    pen.ellipse((box[0] + 13, box[1] + 45, box[0] + 18, box[1] + 50), fill=(10, 10, 10, 255))
    return picture


def looks(picture, phrase="a thing", size=64):
    return {name: (words, shown) for name, words, shown in emoji_looks.looks_of(picture, phrase, size)}


def colours_of(picture):
    return {colour for _, colour in picture.getcolors(picture.width * picture.height)}


def test_looks():
    found = looks(thing())
    assert list(found) == ["plain", "plain-2", "plain-3", "mirrored", "tint-1", "tint-2", "grey", "negative", "small",
                           "ground-1", "ground-2", "silhouette-1", "silhouette-2"]  # fmt: skip
    assert all(shown.mode == "RGB" and shown.size == (64, 64) for _, shown in found.values())
    plain = found["plain"][1]
    assert [found[name][0] for name in ("plain", "plain-2", "mirrored", "grey", "negative", "silhouette-1")] == [
        "", "", "mirrored", "in grey", "negative", "black silhouette"]  # fmt: skip
    ink = ImageOps.invert(plain).getbbox()
    assert (ink[0] >= 2 and ink[1] >= 2 and ink[2] <= 62 and ink[3] <= 62)
    assert max(ink[2] - ink[0], ink[3] - ink[1]) >= 59
    assert found["mirrored"][1].tobytes() == plain.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    assert found["negative"][1].tobytes() == ImageChops.invert(plain).tobytes()
    assert all(red == green == blue for red, green, blue in colours_of(found["grey"][1]))
    for name in ("silhouette-1", "silhouette-2"):
        words, shown = found[name]
        assert colours_of(shown) == {(255, 255, 255), emoji_looks.COLOURS[words.split()[0]]}
        assert words.endswith(" silhouette")
    for name in ("ground-1", "ground-2"):
        words, shown = found[name]
        assert shown.getpixel((0, 0)) == emoji_looks.COLOURS[words.removesuffix(" background")]
    for name in ("tint-1", "tint-2"):
        words, shown = found[name]
        strongest = max(colours_of(shown), key=lambda colour: max(colour) - min(colour))
        meant = emoji_looks.COLOURS[words.removeprefix("in ")]
        assert strongest.index(max(strongest)) == meant.index(max(meant))
        assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert found["tint-1"][0] != found["tint-2"][0] and found["ground-1"][0] != found["ground-2"][0]


def test_where_small_things_are():
    seen = set()
    for number in range(40):
        words, shown = looks(thing(), f"thing {number}")["small"]
        left, top, right, bottom = ImageOps.invert(shown).getbbox()
        assert max(right - left, bottom - top) <= 31
        place = [side for side, there in (("top", bottom < 36), ("bottom", top > 28)) if there]
        place += [side for side, there in (("left", right < 36), ("right", left > 28)) if there]
        assert words == ", ".join(["small", " ".join(place)] if place else ["small"])
        seen.add(words)
    assert len(seen) == 5


def test_looks_that_cannot_be_seen():
    """A grey disc is the same mirrored and in grey, and its silhouette is nobody's; a slab hides its ground."""
    disc = Image.new("RGBA", (136, 128))
    ImageDraw.Draw(disc).ellipse((10, 10, 110, 110), fill=(90, 90, 90, 255))
    assert not {"mirrored", "grey", "silhouette-1"} & set(looks(disc)) and "ground-1" in looks(disc)
    slab = Image.new("RGBA", (128, 128), (250, 212, 64, 255))
    assert not any("ground" in name for name in looks(slab))
    yellow = Image.new("RGBA", (136, 128))
    ImageDraw.Draw(yellow).polygon([(10, 10), (100, 30), (30, 120)], fill=(250, 212, 64, 255))
    assert emoji_looks.is_seen_on(yellow, emoji_looks.COLOURS["blue"])
    assert not emoji_looks.is_seen_on(yellow, emoji_looks.COLOURS["yellow"])


def test_ink():
    drawing = emoji_ink.ink_drawing(thing(), 64)
    grey = numpy.asarray(drawing.convert("L"))
    assert drawing.size == (64, 64) and colours_of(drawing) == {(tone, tone, tone) for tone in numpy.unique(grey)}
    assert (grey > 240).mean() > 0.6 and 0.02 < (grey < 80).mean() < 0.3  # mostly white, and dark lines
    assert emoji_ink.share_of_ink(drawing) < 0.3
    solid = numpy.asarray(emoji_looks.fitted(thing(), 64).getchannel("A"))
    assert (grey[solid == 0] > 190).mean() > 0.9  # around it nothing
    black, white = (Image.new("RGBA", (128, 128), (tone, tone, tone, 255)) for tone in (0, 255))
    middle = numpy.s_[16:48, 16:48]
    assert (numpy.asarray(emoji_ink.ink_drawing(black, 64))[middle] == 0).all()
    sheet = numpy.asarray(emoji_ink.ink_drawing(white, 64))
    assert (sheet[middle] == 255).all() and sheet.min() < 128  # what is white has an outline


def test_blur_is_that_of_a_gaussian():
    plane = numpy.zeros((41, 41))
    plane[20, 20] = 1
    blurred = emoji_ink.blurred(plane, 2)
    assert blurred.sum() == pytest.approx(1, abs=1e-9)
    assert blurred[20, 24] / blurred[20, 20] == pytest.approx(numpy.exp(-2))
    assert (blurred == blurred.T).all()


def test_words_before_and_behind():
    assert emoji_looks.caption_of("a cat", "in blue", True) == "a cat, in blue"
    assert emoji_looks.caption_of("a cat", "in blue", False) == "in blue, a cat"
    assert emoji_looks.caption_of("a cat", "", False) == "a cat"


def test_ligatures():
    from fontTools.fontBuilder import FontBuilder

    names = [".notdef", "cat", "joiner", "black", "black_cat", "other"]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({0x1F408: "cat", 0x200D: "joiner", 0x2B1B: "black"})
    builder.addOpenTypeFeatures("feature ccmp { sub cat joiner black by black_cat; sub cat black by other; } ccmp;")
    assert emoji_font._ligatures(builder.font["GSUB"].table) == {
        ("cat", "joiner", "black"): "black_cat", ("cat", "black"): "other",
    }  # fmt: skip


def test_a_file_that_is_no_font(tmp_path):
    (tmp_path / "font.ttf").write_text("no font")
    with pytest.raises(emoji_font.FontError, match="font.ttf: is no font of colour bitmaps"):
        emoji_font.ColourFont(tmp_path / "font.ttf")


def test_a_part_of_a_vocabulary(tmp_path):
    source = tokenizer_folder(tmp_path / "whole")
    texts = ["a photo of a cat", "CAT photo!", "é, zebra"]
    (tmp_path / "part").mkdir()
    count = clip_vocabulary.write(tmp_path / "part", source, texts)
    part, whole = vocabulary.read(tmp_path / "part"), vocabulary.read(source)
    wanted = ["c a", "ca t</w>", "p h", "o t", "ph ot", "phot o</w>", "a n", "Ã ©</w>"]
    wanted.remove("a n")  # which no text needs
    assert [" ".join(merge) for merge in part.merges] == wanted and set(wanted) < set(MERGES)
    assert part.by_id == [*whole.by_id[:512], *("".join(merge.split()) for merge in wanted), *whole.by_id[-2:]]
    assert count == 512 + 7 + 2 == len(part.by_id)
    ours, theirs = tokenizing.Tokenizer(tmp_path / "part"), tokenizing.Tokenizer(source)
    for text in [*texts, "a photo of an unknown dog"]:  # the last in other pieces
        some = [part.by_id[token] for token in ours.encode([text])[0]]
        others = [whole.by_id[token] for token in theirs.encode([text])[0]]
        assert (some == others) == (text in texts)
        assert "".join(some) == "".join(others)
    assert (ours.begin, ours.end, ours.pad) == (519, 520, 520)


def test_the_part_in_transformers(tmp_path):
    from transformers import CLIPTokenizer

    (tmp_path / "part").mkdir()
    clip_vocabulary.write(tmp_path / "part", tokenizer_folder(tmp_path / "whole"), ["a photo of a cat", "dog, cat"])
    peer, ours = CLIPTokenizer.from_pretrained(tmp_path / "part"), tokenizing.Tokenizer(tmp_path / "part")
    for text in ("a photo of a cat", "dog, cat", "Zebra"):
        assert peer(text)["input_ids"] == [ours.begin, *ours.encode([text])[0], ours.end]
    assert (peer.pad_token_id, peer.model_max_length) == (ours.end, 77)


class MadeFont:
    def __init__(self, path):
        assert Path(path).name == "NotoColorEmoji.ttf"

    def picture(self, codes):
        return None if 0x1F453 in codes else thing(codes[0] + len(codes))  # without glasses


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A runner of the program with made pictures, names and vocabulary."""
    lists, roots = tmp_path / "lists", {}
    lists.mkdir()
    for name, lines in {"names": LIST, "style": ["a cat", "a farmer", "a yeti"], "held-out": ["an elephant"]}.items():
        (lists / f"emoji-{name}.txt").write_text("# list\n" + "\n".join(lines) + "\n")
    for package, file in (emoji.FONT, emoji.NAMES):
        roots[package] = tmp_path / "packages" / package
        (roots[package] / file).parent.mkdir(parents=True)
        (roots[package] / file).write_text(NAMES)
    source = tokenizer_folder(tmp_path / "clip")
    monkeypatch.setattr(emoji, "HERE", lists)
    monkeypatch.setattr(emoji, "ColourFont", MadeFont)
    monkeypatch.setattr(emoji, "LEAST_NOUNS", 2)
    monkeypatch.setattr(emoji, "PRIOR", 3)
    monkeypatch.setattr(clip_vocabulary, "fetched", lambda cache: source)

    def run(output, *options, capsys):
        options = ("--output", output, "--packages", tmp_path / "packages", "--size", 32, *options)
        code = emoji.main([str(option) for option in options])
        return code, capsys.readouterr().err

    return run


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything(made, tmp_path, capsys):
    output = tmp_path / "data/set"
    code, err = made(output, "--sheet", tmp_path / "sheet.png", capsys=capsys)
    assert code == 0, err
    assert "left out: 1 nouns of which the font has no picture" in err
    assert "left out: 1 nouns of emoji-style.txt without a picture, such as 'a yeti'" in err
    rows = {name: emoji.captions_of(output / name) for name in emoji.PARTS}
    for name, captions in rows.items():
        assert {file for file, _ in captions} == {path.name for path in (output / name).glob("*.png")}
        assert all(Image.open(output / name / file).size == (32, 32) for file, _ in captions)
    assert rows["style"] == [("a-cat.png", "sumi, a cat"), ("a-farmer.png", "sumi, a farmer")]
    assert rows["held-out"] == [("an-elephant.png", "sumi, an elephant")]
    assert len(rows["prior"]) == 3
    assert {caption for _, caption in rows["prior"]} <= set(PHRASES) - {"a cat", "a farmer", "an elephant", "glasses"}
    base = [caption for _, caption in rows["base"]]
    assert all("sumi" not in caption for caption in base)
    assert {"a cat", "an elephant"} < set(base) and not any("glasses" in caption for caption in base)
    for noun in set(PHRASES) - {"glasses"}:
        of_noun = [caption for caption in base if noun in caption.split(", ")]
        assert len(of_noun) >= 8 and of_noun.count(noun) == 3
        styles = [caption for caption in of_noun if caption != noun]
        assert {caption.startswith(f"{noun}, ") for caption in styles} == {True, False}
    assert (output / "held-out.txt").read_text() == "an elephant\n"
    assert (output / "trigger.txt").read_text() == "sumi\n"
    assert tokenizing.Tokenizer(output / "vocabulary").size > 512
    assert Image.open(tmp_path / "sheet.png").width > 500

    whole = contents(output)
    assert made(tmp_path / "again", capsys=capsys)[0] == 0 and contents(tmp_path / "again") == whole
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert made(output, capsys=capsys) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == times
    for name in ("prior", "vocabulary"):
        for path in (output / name).iterdir():
            path.unlink()
        (output / name).rmdir()
    assert made(output, capsys=capsys)[0] == 0 and contents(output) == whole


def test_drawings_that_do_not_convince(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(emoji, "MOST_INK", emoji.LEAST_INK)
    code, err = made(tmp_path / "set", capsys=capsys)
    assert code == 0 and "left out: the drawing of a cat, " in err and "put another in emoji-style.txt" in err
    assert emoji.captions_of(tmp_path / "set/style") == []


def test_errors(made, tmp_path, capsys, monkeypatch):
    output = tmp_path / "set"
    assert made(output, "--size", 5, capsys=capsys) == (
        64, "emoji: --size takes a whole number from 16 to 512 (see --help)\n",
    )  # fmt: skip
    assert made(tmp_path / "lists", capsys=capsys) == (
        65, f"emoji: {tmp_path}/lists: holds other files than this program's; choose another folder\n",
    )  # fmt: skip
    assert made(tmp_path / "lists/emoji-names.txt", capsys=capsys)[0] == 73

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr(Image.Image, "save", full)
        code, err = made(output, capsys=capsys)
        assert code == 73 and err.endswith(f"emoji: {output}: No space left on device; choose another place\n")
        assert [path.name for path in output.iterdir()] == ["settings.json"]
    with monkeypatch.context() as changed:
        changed.setattr(emoji, "LEAST_NOUNS", 100)
        code, err = made(output, capsys=capsys)
        assert code == 65 and "emoji: only 8 nouns have pictures: " in err
    assert made(output, capsys=capsys)[0] == 0
    code, err = made(output, "--size", 16, capsys=capsys)
    assert code == 65 and err == (
        f"emoji: {output}: holds pictures of another --size or --nouns; remove it, or choose another folder\n"
    )


def test_packages_that_are_not_to_be_had(tmp_path, capsys, monkeypatch):
    """Neither by apt-get nor by pip, nor what the wheel should hold."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/apt-get").write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    (tmp_path / "tools/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/tools:{os.environ['PATH']}")
    code = emoji.main(["--output", str(tmp_path / "set"), "--packages", str(tmp_path / "packages")])
    assert (code, capsys.readouterr().err) == (
        65, "emoji: package fonts-noto-color-emoji is not to be had: E: Unable to locate package; run `apt-get update` and "
        "try again\n",
    )  # fmt: skip
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(clip_vocabulary.VocabularyError, match=r"^open_clip_torch 3.3.0 cannot be downloaded \(.*\); check"):
        clip_vocabulary.fetched(tmp_path / "packages")
    assert not any(path.is_file() for path in (tmp_path / "packages").rglob("*"))


@pytest.mark.slow
def test_the_real_set(tmp_path, capsys):
    cache, output = tmp_path / "packages", tmp_path / "set"
    try:
        roots = emoji.fetched(cache)
        source = clip_vocabulary.fetched(cache)
    except (PackageError, emoji.EmojiError, clip_vocabulary.VocabularyError) as error:
        pytest.skip(f"no emoji here: {error}")
    text = emoji.file_of(roots, emoji.NAMES).read_text(encoding="utf-8")
    lines = emoji_names.lines_of(emoji.HERE / "emoji-names.txt")
    assert emoji_names.unknown(emoji_names.exceptions_of(lines), text) == []

    assert emoji.main(["--output", str(output), "--packages", str(cache)]) == 0
    assert "left out" not in capsys.readouterr().err
    rows = {name: emoji.captions_of(output / name) for name in emoji.PARTS}
    assert len(rows["base"]) > 9000
    assert [len(rows[name]) for name in ("style", "prior", "held-out")] == [60, 120, 14]
    nouns = {name: {caption.split(", ")[-1] for _, caption in rows[name]} for name in ("style", "prior", "held-out")}
    assert len(set().union(*nouns.values())) == 60 + 120 + 14
    captions = [caption for each in rows.values() for _, caption in each]
    assert set().union(*nouns.values()) < set(captions)
    assert all(caption.isascii() and caption == caption.lower() and len(caption) < 70 for caption in captions)

    from transformers import CLIPTokenizer

    whole, part = vocabulary.read(source), vocabulary.read(output / "vocabulary")
    full, pruned = tokenizing.Tokenizer(source), tokenizing.Tokenizer(output / "vocabulary")
    assert full.encode([emoji.TRIGGER]) == [[41248]]
    assert all(41248 not in ids for ids in full.encode([caption for _, caption in rows["base"]]))
    peer = CLIPTokenizer.from_pretrained(output / "vocabulary")
    ours = pruned.encode(captions)
    assert [[part.by_id[token] for token in ids] for ids in ours] == [
        [whole.by_id[token] for token in ids] for ids in full.encode(captions)
    ]  # fmt: skip
    assert peer(captions)["input_ids"] == [[pruned.begin, *ids, pruned.end] for ids in ours]
    assert json.loads((output / "vocabulary/vocab.json").read_text()) == {name: i for i, name in enumerate(part.by_id)}
