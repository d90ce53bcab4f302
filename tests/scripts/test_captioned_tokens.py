"""Captions to tokens and tags, beside transformers' CLIPTokenizer; and the forms of CLIP's vocabulary."""

import gzip
import hashlib
import json
import os
import random

import pytest
from captioned import MERGES, SPECIALS, tokenizer_folder, vocabulary
from lorascale_captions import tokenizing
from lorascale_captions import vocabulary as vocabularies
from lorascale_captions.tags import Captions, tags_of
from lorascale_data.errors import PrepareError

TEXTS = [
    "a photo of a cat", "A Photo, of  THE cat's 3dogs!!", "1girl, solo, (masterpiece:1.2)", "café cafe\u0301 É",
    "it's we'll don't 12345", "日本語 テスト", "🙂 ok / a_b-c.d / sks dog", "²½٣ İ ß ﬁ “x” &amp; \u200b\u00a0y",
    "wow!, cat", "a,, b", "x\ty\n z", "",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return tokenizer_folder(tmp_path / "clip")


@pytest.fixture(scope="module")
def peer():
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=vocabulary(), merges=[tuple(merge.split()) for merge in MERGES])


def random_texts(count):
    letters = "catphodgsk ,.!'()12éÄ日🙂\u0301 \t" + "cat dog photo sks , " * 2
    generator = random.Random(0)
    return ["".join(generator.choices(letters, k=generator.randrange(1, 40))) for _ in range(count)]


def test_tokens_are_those_of_transformers(folder, peer):
    ours = tokenizing.Tokenizer(folder)
    texts = TEXTS + random_texts(300)
    assert ours.encode(texts) == peer(texts, add_special_tokens=False)["input_ids"]
    assert (ours.begin, ours.end, ours.pad) == (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id)
    assert ours.size == len(peer)


def test_tags_give_the_tokens_of_the_caption_in_any_order(folder, peer):
    """All but the last with their commas, which may be a part of a token, as in "wow!, cat"."""
    texts = TEXTS + random_texts(300)
    captions = Captions(tokenizing.Tokenizer(folder), texts)
    data = {name: values.tolist() for name, values in captions.columns(list(range(len(texts)))).items()}
    generator = random.Random(1)
    for row, text in enumerate(captions.texts):
        first, last = data["caption_tags"][row : row + 2]
        forms = [data["tokens"][data["tags"][i] : data["tags"][i + 1]] for i in range(2 * first, 2 * last)]
        words = tags_of(text)
        assert len(forms) == 2 * len(words)
        for order in (range(len(words)), generator.sample(range(len(words)), len(words))):
            joined = [token for i in list(order)[:-1] for token in forms[2 * i]]
            joined += forms[2 * list(order)[-1] + 1] if words else []
            expected = ", ".join(words[i] for i in order)
            assert joined == peer(expected, add_special_tokens=False)["input_ids"], expected
    some = captions.columns([3, 1])
    assert some["tags"][0] == 0 and some["tags"][-1] == len(some["tokens"]) and len(some["caption_tags"]) == 3


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("a, b c ,\nd", ["a", "b c", "d"]),
        ("1,000 cats,", ["1,000 cats"]),
        (" , a,, b, ", ["a,", "b"]),
        ("", []),
        (",", []),
        ("a,b", ["a,b"]),
    ],
)
def test_where_tags_part(caption, tags):
    assert tags_of(caption) == tags


def test_all_forms_are_one_vocabulary(folder, tmp_path, peer, monkeypatch):
    """vocab.json with merges.txt, tokenizer.json alone (what transformers 5 saves), OpenAI's file."""
    peer.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved/vocab.json").exists()
    text = "\n".join(['"bpe_simple_vocab_16e6.txt#version: 0.2', *MERGES, "beyond what</w>"]) + "\n"
    file = tmp_path / vocabularies.BPE_FILE
    file.write_bytes(gzip.compress(text.encode()))
    monkeypatch.setattr(vocabularies, "BPE_MERGES", len(MERGES))
    with pytest.raises(PrepareError, match="is another file than OpenAI's"):
        tokenizing.Tokenizer(file)
    monkeypatch.setattr(vocabularies, "BPE_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    paths = [folder, tmp_path / "saved", tmp_path / "saved/tokenizer.json", file]
    made = [tokenizing.Tokenizer(path) for path in paths]
    names = vocabulary()
    lines = [f"{i} {name}\n" for i, name in enumerate(names)] + [f"{merge}\n" for merge in MERGES]
    assert {tokenizer.sha256 for tokenizer in made} == {hashlib.sha256("".join(lines).encode()).hexdigest()}
    assert len({(tokenizer.begin, tokenizer.end, tokenizer.pad, tokenizer.size) for tokenizer in made}) == 1
    assert all(tokenizer.encode(TEXTS) == made[0].encode(TEXTS) for tokenizer in made)
    other = tokenizer_folder(tmp_path / "other", MERGES[:-1])
    assert tokenizing.Tokenizer(other).sha256 != made[0].sha256


def test_special_tokens_are_those_of_the_settings(tmp_path):
    specials = ["<pad>", "<end>", "<begin>"]
    folder = tokenizer_folder(tmp_path / "clip", specials=specials, bos_token="<begin>", eos_token={"content": "<end>"},
                              pad_token="<pad>")  # fmt: skip
    tokenizer = tokenizing.Tokenizer(folder)
    names = vocabulary(specials=specials)
    assert (tokenizer.begin, tokenizer.end, tokenizer.pad) == tuple(names[n] for n in ("<begin>", "<end>", "<pad>"))


def test_added_tokens(folder):
    count = len(vocabulary())
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": count, "<|endoftext|>": count - 1}))
    tokenizer = tokenizing.Tokenizer(folder)
    assert tokenizer.size == count + 1
    assert tokenizer.encode(["cat <new> dog"]) == [[vocabulary()["cat</w>"], count, vocabulary()["dog</w>"]]]


def test_models(tmp_path):
    tokenizer_folder(tmp_path / "tokenizer")
    assert tokenizing.of_model(tmp_path)[1] is None
    tokenizer_folder(tmp_path / "tokenizer_2", pad_token="!")
    assert tokenizing.of_model(tmp_path)[1] == 0
    tokenizer_folder(tmp_path / "tokenizer_2", MERGES[:-1])
    with pytest.raises(PrepareError, match="gives other tokens than"):
        tokenizing.of_model(tmp_path)
    with pytest.raises(PrepareError, match="holds no folder tokenizer; give a diffusers folder, or --tokenizer"):
        tokenizing.of_model(tmp_path / "tokenizer")


def spoiled(folder, name, text):
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: spoiled(f, "vocab.json", "{"), "vocab.json: cannot be read"),
        (lambda f: spoiled(f, "vocab.json", "[]"), "vocab.json: is no JSON object"),
        (lambda f: spoiled(f, "vocab.json", '{"a": "0"}'), "does not give each token a number"),
        (lambda f: spoiled(f, "vocab.json", json.dumps({**vocabulary(), "gap": 10_000})), "without gaps"),
        (lambda f: spoiled(f, "merges.txt", "#version: 0.2\nq q\n"), "the merge of q and q is no token"),
        (lambda f: spoiled(f, "merges.txt", "a b c\n"), "a merge is not of two tokens"),
        (
            lambda f: spoiled(f, "tokenizer_config.json", '{"pad_token": "<gone>"}'),
            "has no token <gone>, its pad_token",
        ),
        (lambda f: spoiled(f, "tokenizer.json", '{"model": {"type": "WordPiece"}}'), "does not end words with </w>"),
        (lambda f: spoiled(f, "tokenizer.json", tokenizer_json([])), "vocab.json and tokenizer.json differ"),
        (lambda f: spoiled(f, "tokenizer.json", tokenizer_json([5])), "a merge is not of two tokens"),
        (lambda f: (f / "merges.txt").unlink() or f, "neither vocab.json with merges.txt nor tokenizer.json"),
        (lambda f: f / "gone", "there is no such file or folder"),
        (lambda f: f / "merges.txt", "is no tokenizer; give its folder"),
        (lambda f: spoiled(f, "x.gz", "no gzip") / "x.gz", "x.gz: cannot be read"),
    ],
)
def test_what_is_no_tokenizer(folder, spoil, message):
    with pytest.raises(PrepareError, match=message):
        tokenizing.Tokenizer(spoil(folder))


def tokenizer_json(merges):
    return json.dumps({"model": {"vocab": vocabulary(), "merges": merges, "end_of_word_suffix": "</w>"}})


@pytest.mark.skipif(
    "LORASCALE_CLIP_BPE" not in os.environ, reason="LORASCALE_CLIP_BPE names no " + vocabularies.BPE_FILE
)
def test_the_real_vocabulary():
    """The vectors of models.md E.2, made with OpenAI's own code."""
    tokenizer = tokenizing.Tokenizer(os.environ["LORASCALE_CLIP_BPE"])
    assert (tokenizer.begin, tokenizer.end, tokenizer.pad, tokenizer.size) == (49406, 49407, 49407, 49408)
    vectors = {
        "a photo of a cat": "320 1125 539 320 2368",
        "A Photo, of  THE cat's 3dogs!!": "320 1125 267 539 518 2368 568 274 3255 748",
        "1girl, solo, (masterpiece:1.2)": "272 1611 267 5797 267 263 12066 281 272 269 273 264",
        "it's we'll don't 12345": "585 568 649 1342 847 713 272 273 274 275 276",
        "café naïve ÜBER": "15304 1097 35689 563 6522 1516",
        "日本語 テスト": "39121 44353 34002 508 2429 228 32421 486",
        "🙂 ok": "14860 2481",
        "a_b-c.d": "320 318 321 268 322 269 323",
        "sks dog": "48136 1929",
    }
    assert tokenizer.encode(list(vectors)) == [[int(i) for i in ids.split()] for ids in vectors.values()]


assert SPECIALS[1] == vocabularies.END  # what the tests above take for granted
