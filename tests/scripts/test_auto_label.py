"""The script as users run it, with small random models made here; what they say is compared with transformers."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import auto_label
import numpy
import pytest
import torch
import transformers
from conftest import SCRIPTS, outcome_of
from lorascale_data import tables
from lorascale_data.stream import Stream
from lorascale_labels import captions, models, pictures, table, texts
from pictures import noise, write_tree
from PIL import Image
from tokenizers import pre_tokenizers

WORDS = 'a picture of the red green blue cat dog house tree on in with and photo drawing , . " night'.split()
TAGS = ["a cat", "the dog", "a red house", "night", "tree"]
SIDE = 32
VISION = {"image_size": SIDE, "patch_size": 8, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
          "num_attention_heads": 2, "initializer_range": 0.3, "initializer_factor": 1.0}  # fmt: skip
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
PIXELS = {f"{i}.png": noise(i, 24 + 4 * i, 40) // 4 + numpy.uint8(45 * i) for i in range(5)}


def make_blip(folder):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocabulary = {word: i for i, word in enumerate(specials + WORDS)}
    tokenizer = transformers.BertTokenizer(vocab=vocabulary, additional_special_tokens=["[DEC]"])
    text = {
        **TEXT,
        "vocab_size": len(vocabulary),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 40,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "initializer_range": 0.4,
    }
    torch.manual_seed(2)
    config = transformers.BlipConfig(
        text_config=text, vision_config=VISION, projection_dim=32, image_text_hidden_size=32
    )
    transformers.BlipForConditionalGeneration(config).save_pretrained(folder)
    image = transformers.BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    transformers.BlipProcessor(image, tokenizer).save_pretrained(folder)
    return folder


def make_clip(folder):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[])
    text = {
        **TEXT,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 16,
        "projection_dim": 24,
        "bos_token_id": len(vocabulary) - 2,
        "eos_token_id": len(vocabulary) - 1,
        "pad_token_id": 1,
    }
    torch.manual_seed(3)
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**VISION, "projection_dim": 24}, projection_dim=24
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    image = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    transformers.CLIPProcessor(image, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def blip(tmp_path_factory):
    return make_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def folder(tmp_path):
    return write_tree(tmp_path / "in", PIXELS)


def run_label(folder, model, *options):
    arguments = [folder, "--model", model, "--device", "cpu", "--batch", "2", *options]
    return outcome_of(auto_label.main, [str(argument) for argument in arguments])


def label(*arguments):
    outcome = run_label(*arguments)
    assert outcome.code == 0, outcome.err
    return outcome


def rows_of(folder):
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    assert header == ["file_name", "text"]
    return dict(rows)


def opened(folder):
    return [Image.open(folder / name).convert("RGB") for name in sorted(PIXELS)]


def said_by_blip(model, images, prompt=None, **search):
    """By transformers alone, two pictures at once as the script here."""
    network = transformers.BlipForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
    processor = transformers.BlipProcessor.from_pretrained(model)
    result = []
    for first in range(0, len(images), 2):
        batch = images[first : first + 2]
        inputs = processor(images=batch, text=[prompt] * len(batch) if prompt else None, return_tensors="pt")
        ids = network.generate(**inputs, do_sample=False, **search)
        result += [processor.decode(one, skip_special_tokens=True) for one in ids]
    return result


@pytest.mark.parametrize(
    ("options", "search"),
    [
        ((), {"num_beams": 3, "max_new_tokens": 30}),
        (("--beams", "1", "--max-tokens", "6"), {"num_beams": 1, "max_new_tokens": 6}),
        (
            ("--prompt", " a photo\nof ", "--max-tokens", "8"),
            {"num_beams": 3, "max_new_tokens": 8, "prompt": "a photo of"},
        ),
    ],
)
def test_blip_says_what_transformers_says(folder, blip, options, search):
    outcome = label(folder, blip, *options)
    wanted = said_by_blip(blip, opened(folder), **search)
    assert rows_of(folder) == dict(zip(sorted(PIXELS), wanted, strict=True))
    assert len(set(wanted)) > 2 and all(text.startswith(search.get("prompt", "")) for text in wanted)
    assert f"captions:   5 written, 0 there already -> {folder}/metadata.csv\n" in outcome.out
    assert f"  0.png: {wanted[0]}\n" in outcome.out and "left out:   nothing\n" in outcome.out and outcome.err == ""


def probabilities(model, images):
    network = transformers.CLIPModel.from_pretrained(model, dtype=torch.float32)
    inputs = transformers.CLIPProcessor.from_pretrained(model)(
        text=TAGS, images=images, return_tensors="pt", padding=True
    )
    with torch.no_grad():
        return network(**inputs).logits_per_image.softmax(1).numpy()


def test_clip_ranks_as_transformers_does(folder, clip, tmp_path):
    (tmp_path / "tags.txt").write_text("\ufeff" + "\r\n".join([*TAGS, "", " the  dog "]), encoding="utf-8")
    label(folder, clip, "--tags", tmp_path / "tags.txt", "--top", "3")
    table = probabilities(clip, opened(folder))
    best = [", ".join(TAGS[i] for i in numpy.argsort(-row, kind="stable")[:3]) for row in table]
    assert rows_of(folder) == dict(zip(sorted(PIXELS), best, strict=True)) and len(set(best)) > 1


def test_clip_threshold(folder, clip):
    table = probabilities(clip, opened(folder))
    threshold = float(numpy.sort(table.max(1))[1:3].mean())  # two pictures have no tag of it
    outcome = label(folder, clip, "--tags", ",".join(TAGS), "--threshold", threshold)
    wanted = {
        name: ", ".join(TAGS[i] for i in numpy.argsort(-row, kind="stable") if row[i] >= threshold)
        for name, row in zip(sorted(PIXELS), table, strict=True)
    }
    assert rows_of(folder) == {name: text for name, text in wanted.items() if text} and len(rows_of(folder)) == 3
    assert "captions:   3 written" in outcome.out and "left out:   2 for which the model has no words" in outcome.out
    label(folder, clip, "--tags", ",".join(TAGS), "--threshold", threshold, "--prefix", "sks")
    assert [rows_of(folder)[name] for name, text in wanted.items() if not text] == ["sks", "sks"]


def test_many_tags_are_taken_in_parts(folder, clip, monkeypatch):
    label(folder, clip, "--tags", ",".join(TAGS))
    whole = rows_of(folder)
    (folder / "metadata.csv").unlink()
    monkeypatch.setattr("lorascale_labels.clip._BATCH", 2)
    label(folder, clip, "--tags", ",".join(TAGS))
    assert rows_of(folder) == whole


def test_prefix(folder, blip):
    label(folder, blip, "--prefix", " sks\n dog, ")
    assert (
        rows_of(folder)["0.png"]
        == "sks dog, " + said_by_blip(blip, opened(folder)[:2], num_beams=3, max_new_tokens=30)[0]
    )


def interrupt_after(monkeypatch, saves):
    count = []

    def save(self, made, real=captions.Captions.save):
        if len(count) == saves:
            raise KeyboardInterrupt
        count.append(1)
        return real(self, made)

    monkeypatch.setattr(captions.Captions, "save", save)


@pytest.mark.parametrize("options", [(), ("--replace-own", "--prefix", "new")])
def test_the_same_command_goes_on_after_an_interrupt(folder, blip, monkeypatch, options):
    label(folder, blip)  # what is replaced with --replace-own
    if not options:
        (folder / "metadata.csv").unlink()
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        outcome = run_label(folder, blip, *options)
    assert outcome.code == 130 and outcome.out == ""
    assert outcome.err == "auto_label: interrupted, 4 new captions are saved; the same command goes on\n"
    assert sum(text.startswith("new") or not options for text in rows_of(folder).values()) == 4
    outcome = label(folder, blip, *options)
    assert "1 written, 4 there already" in outcome.out
    went_on = (folder / "metadata.csv").read_bytes()
    for name in ("metadata.csv", ".auto_label.json"):
        (folder / name).unlink()
    label(folder, blip, *options)
    assert (folder / "metadata.csv").read_bytes() == went_on
    assert sorted(path.name for path in folder.iterdir()) == sorted([*PIXELS, "metadata.csv", ".auto_label.json"])


@pytest.mark.parametrize("place", ["memory", "table"])
def test_an_interrupt_while_saving_loses_no_mark(folder, blip, monkeypatch, place):
    """Neither of new captions nor of replaced ones: all stay this program's own."""
    label(folder, blip)
    with monkeypatch.context() as patched:

        def give_name(temporary, path, replace, real=captions.give_name):
            if (path.name == "metadata.csv") == (place == "table"):
                raise KeyboardInterrupt
            real(temporary, path, replace)

        patched.setattr(captions, "give_name", give_name)
        assert run_label(folder, blip, "--replace-own", "--prefix", "new").code == 130
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]
    label(folder, blip, "--replace-own", "--prefix", "other")
    assert all(text.startswith("other, ") for text in rows_of(folder).values())


def test_nothing_to_do_loads_no_model(folder, blip, monkeypatch):
    label(folder, blip)
    before = (folder / "metadata.csv").stat().st_mtime_ns
    monkeypatch.setattr(models, "load", None)
    for options in ((), ("--replace-own",)):
        assert "captions:   0 written, 5 there already" in label(folder, blip, *options).out
    assert (folder / "metadata.csv").stat().st_mtime_ns == before


def test_what_the_table_holds_stays_byte_for_byte(folder, blip):
    mine = (
        '\ufefftext,"file_name",source\r\n"my ""own"", \ntext",./1.png,"me"\r\n\r\n,2.png,\r\nlost,gone.png,x'.encode()
    )
    (folder / "metadata.csv").write_bytes(mine)
    outcome = label(folder, blip, "--replace-own", "--prefix", 'a "b", c')
    after = (folder / "metadata.csv").read_bytes()
    assert after.startswith(mine + b"\r\n") and after.endswith(b"\r\n")
    rows = list(csv.reader(io.StringIO(after[len(mine) + 2 :].decode(), newline="")))
    assert [row[1:] for row in rows] == [["0.png", ""], ["3.png", ""], ["4.png", ""]]
    assert all(row[0].startswith('a "b", c, ') for row in rows)
    assert "1 pictures have an empty text, which stays; remove the rows" in outcome.err
    assert "1 rows name no picture of the folder, such as gone.png; they stay" in outcome.err


def test_edited_captions_are_kept(folder, blip):
    label(folder, blip)
    path = folder / "metadata.csv"
    old = rows_of(folder)
    with open(path, "w", encoding="utf-8", newline="") as file:  # as a spreadsheet does: all anew, one of it changed
        rows = {"file_name": "text", **old, "1.png": "mine"}
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows.items())
    edited = path.read_text()
    label(folder, blip, "--prefix", "new")
    assert path.read_text() == edited
    outcome = label(folder, blip, "--prefix", "new", "--replace-own")
    assert "4 written, 1 there already" in outcome.out
    assert rows_of(folder) == {name: "mine" if name == "1.png" else f"new, {text}" for name, text in old.items()}


def test_own_captions_of_changed_pictures_are_replaced(folder, blip):
    label(folder, blip)
    write_tree(folder, {"1.png": noise(77, 50, 50)})
    assert "1 written, 4 there already" in label(folder, blip, "--replace-own").out


def test_edits_while_it_runs_are_kept(folder, blip, monkeypatch):
    def save(self, made, real=captions.Captions.save):
        path = folder / "metadata.csv"
        if path.exists() and "mine" not in path.read_text():
            path.write_text("file_name,text\n0.png,mine\n3.png,mine too\n")
        return real(self, made)

    monkeypatch.setattr(captions.Captions, "save", save)
    assert "captions:   4 written" in label(folder, blip).out  # the second batch's 3.png is not
    rows = rows_of(folder)
    assert list(rows) == ["0.png", "3.png", "2.png", "4.png"]
    assert (rows["0.png"], rows["3.png"]) == ("mine", "mine too")


def test_delimiter_and_columns_of_the_table_are_kept(folder, blip):
    (folder / "metadata.csv").write_text("filename;prompt\n1.png;one, two\n")
    label(folder, blip, "--prefix", "x;y")
    lines = (folder / "metadata.csv").read_text().splitlines()
    assert lines[1] == "1.png;one, two" and lines[2].startswith('0.png;"x;y, ') and len(lines) == 6


def test_names(folder, blip):
    """At any depth; hidden ones and links to elsewhere not; names that need quotes; others' caption files."""
    write_tree(folder, {'sub/a, "b".png': noise(1), "sub/.c.png": noise(2), ".d/e.png": noise(3), "f.png": noise(4)})
    (folder / "f.txt").write_text("by hand")
    outcome = label(folder, blip)
    assert list(rows_of(folder)) == [*sorted(PIXELS), 'sub/a, "b".png']
    assert "left out:   1 with a caption file beside them" in outcome.out
    assert "1 pictures have captions in files beside them, such as f.png, and get none" in outcome.err


def test_pictures_are_turned_and_put_on_white(tmp_path):
    pixels = noise(1, 8, 12)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert numpy.array_equal(pictures.load(tmp_path, "turned.png"), numpy.rot90(pixels, -1))
    clear = numpy.dstack([pixels, numpy.zeros((8, 12), numpy.uint8)])
    write_tree(tmp_path, {"clear.png": clear})
    assert (numpy.asarray(pictures.load(tmp_path, "clear.png")) == 255).all()


BAD = {
    "cut.png": (b"\x89PNG\r\n", "is no picture of a known kind, or damaged; convert it to PNG or fetch it again"),
    "long.png": (noise(1, 2, 200), "is 200 x 2, too long for a model; crop it"),
    "a\nb.png": (noise(1), "has a line break or the like in its name, rename it"),
    "caf\udce9.png": (noise(1), "is named in no UTF-8, rename it"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures(folder, blip, name):
    content, message = BAD[name]
    write_tree(folder, {name: content})
    outcome = run_label(folder, blip)
    assert outcome.code == 65 and outcome.err.count("\n") == 1
    assert outcome.err.endswith(f"{message} (--skip-bad leaves bad pictures out)\n")
    outcome = label(folder, blip, "--skip-bad")
    assert "left out:   1 bad\n" in outcome.out and message in outcome.out
    assert sorted(rows_of(folder)) == sorted(PIXELS)


def test_links_out_of_the_folder_are_bad(folder, blip, tmp_path):
    write_tree(tmp_path, {"secret.png": noise(9)})
    (folder / "9.png").symlink_to(tmp_path / "secret.png")
    assert "9.png: is a link that leads out of the folder; copy the file" in run_label(folder, blip).err
    assert sorted(rows_of(folder)) == ["0.png", "1.png", "2.png", "3.png"]  # what was saved before it


def test_bad_pictures_alone(tmp_path, blip):
    folder = write_tree(tmp_path / "in", {"a.png": b"x"})
    outcome = run_label(folder, blip, "--skip-bad")
    assert outcome.code == 65 and "no picture is good, the first of them: " in outcome.err
    assert not (folder / "metadata.csv").exists()


@pytest.fixture
def refused(folder):
    """refused(model, *options): the one line of an error with its code; nothing is written."""

    def run(model, *options, code=65, folder=folder):
        before = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else None
        outcome = run_label(folder, model, *options)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (code, "", 1), outcome.err
        assert before == ({path.name: path.read_bytes() for path in folder.iterdir()} if before is not None else None)
        return outcome.err.removeprefix("auto_label: ").removesuffix("\n")

    return run


def copied(model, folder, **changes):
    """A folder with another config.json, and links to the rest."""
    folder.mkdir()
    for path in model.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path)
    config = {**json.loads((model / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_wrong_models(refused, blip, clip, tmp_path):
    assert "nowhere: there is no such folder; nothing is downloaded, give" in refused("nowhere")
    assert "config.json: there is no such file, so this is no model; give" in refused(tmp_path)
    model = copied(blip, tmp_path / "a", model_type="llama")
    assert "config.json: the model is of type llama; give the folder of a BLIP" in refused(model)
    model = copied(blip, tmp_path / "b", architectures=["BlipForQuestionAnswering"])
    assert "config.json: the model is a BlipForQuestionAnswering; give" in refused(model)
    (model / "config.json").write_text("{")
    assert "config.json: cannot be read (" in refused(model)
    model = copied(clip, tmp_path / "c", architectures=None, model_type="blip")
    assert "fetch the folder again" in refused(model) or "lacks weights" in refused(model)
    model = copied(blip, tmp_path / "d")
    (model / "model.safetensors").unlink()
    assert "d: cannot be loaded (" in refused(model) and "fetch the folder again" in refused(model)
    (model / "model.safetensors").write_bytes((blip / "model.safetensors").read_bytes()[:5000])
    assert "d: cannot be loaded (" in refused(model)


def test_weights_that_lack_some(refused, clip, tmp_path):
    model = copied(clip, tmp_path / "m")
    (model / "model.safetensors").unlink()
    network = transformers.CLIPModel.from_pretrained(clip)
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("text_projection")}
    network.save_pretrained(model, state_dict=state)
    assert "m: lacks weights (1, such as text_projection.weight); give" in refused(model, "--tags", "a,b")


def test_pictures_of_another_size_than_the_model(refused, blip, tmp_path):
    model = copied(blip, tmp_path / "m")
    for path in model.glob("*processor*"):
        text = path.read_text().replace(f'"height": {SIDE}', '"height": 40')
        path.unlink()
        path.write_text(text)
    assert "m: cannot work on pictures (" in refused(model)


def test_wrong_options(refused, blip, clip, tmp_path):
    for options, model, message in [
        (("--tags", "a,b"), blip, "--tags is for CLIP, and "),
        (("--tags", "a,b", "--max-tokens", "3"), clip, "--max-tokens is for BLIP, and "),
        ((), clip, "is CLIP, which chooses from given tags: give --tags FILE or a,b,c"),
        (("--tags", "alone"), clip, "--tags alone: to choose from takes two tags or more"),
        (("--tags", "a,a"), clip, "--tags a,a: to choose from takes two tags or more"),
        (("--tags", "a," + "cat " * 40), clip, "tokens where the model takes 16, shorten it"),
        (("--max-tokens", "40"), blip, "--max-tokens 40: the model has room for 39 behind the prompt, give fewer"),
        (("--batch", "0"), blip, "argument --batch: 0 is not between 1 and 4096 (see --help)"),
        (("--threshold", "nan"), blip, "nan is not between 0.0 and 1.0"),
    ]:
        assert message in refused(model, *options, code=64)
    assert "tags.txt: cannot be read (No such file or directory), check the path" in refused(clip, "--tags", "tags.txt")
    (tmp_path / "latin").write_bytes(b"caf\xe9\nb")
    assert "latin: not UTF-8, convert it with iconv" in refused(clip, "--tags", tmp_path / "latin")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(refused, blip):
    assert "--device cuda: torch finds no GPU that it can use, give --device cpu" in refused(
        blip, "--device", "cuda", code=64
    )


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            b"image,text\n",
            "metadata.csv:1: needs one column file_name or filename or file, and has image, text; name the",
        ),
        (b"file_name,text\n1.png,a, b\n", "metadata.csv:2: the row has 3 fields where the header has 2; captions with"),
        (b'file_name,text\n1.png,"a\n\n', "metadata.csv:2: no valid CSV (unexpected end of data)"),
        (b"file_name,text\n\n1.png,caf\xe9\n", "metadata.csv:3: not UTF-8 (byte 0xe9): save it as CSV UTF-8"),
    ],
)
def test_tables_that_cannot_be_read(refused, folder, blip, contents, message):
    (folder / "metadata.csv").write_bytes(contents)
    assert message in refused(blip)


def test_other_refusals(refused, folder, blip, tmp_path):
    assert "gone: there is no such folder, check the path" in refused(blip, folder=tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "empty: holds no picture, check the path" in refused(blip, folder=tmp_path / "empty")
    with captions.alone_in(folder):
        assert "another auto_label.py works on it, wait for its end" in refused(blip, code=73)
    (folder / ".auto_label.json").write_text("{}")
    assert ".auto_label.json: cannot be read (damaged); remove it, the captions there" in refused(blip)
    (folder / ".auto_label.json").unlink()
    (folder / "metadata.jsonl").write_text("")
    assert "metadata.jsonl: has captions, too; turn it into metadata.csv" in refused(blip)


def test_a_full_disk(refused, blip, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "metadata.csv")

    monkeypatch.setattr(captions, "sync", full)
    assert "No space left on device, free some space or choose another place" in refused(blip, code=73)


def test_memory_that_does_not_suffice():
    error = RuntimeError("CUDA out of memory. Tried to allocate")
    wanted = "--batch 8: does not fit into the memory of cuda, give --batch 4"
    assert str(models.refusal(error, "m", "cuda", 8)) == wanted
    assert "give --device cpu" in str(models.refusal(MemoryError(), "m", "cuda", 1))


def test_texts_are_one_line():
    assert texts.flat(" a\r\n b\u2028c\0d\t e\u200df ") == "a b c d e\u200df"
    assert texts.tags_of("a , b,,a") == ["a", "b"]


def test_a_table_with_what_may_stand_in_captions(tmp_path):
    made = table.Table(tmp_path, b"")
    for name, text in {"a,b.png": 'say "hi", you', "c.png": " x ", "d.png": "=1+1"}.items():
        made.append(name, text)
    rows = list(csv.reader(io.StringIO(made.contents().decode(), newline=""), strict=True))
    assert rows == [["file_name", "text"], ["a,b.png", 'say "hi", you'], ["c.png", " x "], ["d.png", "=1+1"]]
    (tmp_path / "metadata.csv").write_bytes(made.contents())
    stream = Stream(tmp_path / "metadata.csv")  # as prepare_images.py reads it
    records = [json.loads(raw) for _, raw in tables.rows(stream)]
    stream.close()
    assert records == [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


HELD = """
import sys, time, auto_label
def update(*_):
    print("saved", flush=True)
    time.sleep(60)
auto_label.report.Progress.update = update
sys.exit(auto_label.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_keep_what_was_saved(folder, blip, number):
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, folder, "--model", blip, "--device", "cpu", "--batch", "2"],
        cwd=SCRIPTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "saved\n", process.stderr.read()
        time.sleep(0.2)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number and err == (
        "auto_label: interrupted, 2 new captions are saved; the same command goes on\n"
    )
    assert list(rows_of(folder)) == ["0.png", "1.png"]


def test_a_python_without_the_libraries_is_told_of_the_one_with_them():
    outcome = subprocess.run(
        [sys.executable, "-S", SCRIPTS / "auto_label.py", "--help"], capture_output=True, text=True
    )
    assert outcome.returncode == 69 and outcome.stderr.count("\n") == 1, outcome.stderr


def test_help_loads_no_torch():
    code = "import auto_label, sys; auto_label.make_parser().format_help(); print('torch' in sys.modules)"
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, env=dict(os.environ)
    )
    assert outcome.stdout == "False\n", outcome.stderr
