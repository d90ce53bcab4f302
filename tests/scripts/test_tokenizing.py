"""Token ids, masks, boundaries, BOS and EOS, and the table from ids to bytes."""

import json

import numpy
import pytest
import tokenizers
from conftest import byte_level_tokenizer, save
from lorascale_data import tokenizing, vocabulary
from lorascale_data.chat import Segment
from lorascale_data.errors import PrepareError
from lorascale_data.records import Document

TEXTS = [
    "The quick fox",
    " lead and trail ",
    "naïve café 日本語 🙂\n\n\ttabs  and   runs",
    "a",
    "\u0000\x7f é",
]


def load(folder, **options):
    return tokenizing.load(tokenizing.TokenizerOptions(str(folder), **options))


def plain(text):
    return Document("plain", [Segment(text, True)])


def answer(*parts):
    return Document("answer", [Segment(text, i % 2 == 1) for i, text in enumerate(parts)])


def one(tokenizer, document):
    (encoded,) = tokenizer.encode([document])
    return encoded


def test_bytes():
    encoded = one(load("bytes"), answer("Qé ", "A"))
    assert encoded.ids.tolist() == [*"Qé A".encode(), 256]
    assert encoded.mask.tolist() == [0, 0, 0, 0, 1, 1]
    assert one(load("bytes", add_eos=False), plain("hi")).ids.tolist() == [*b"hi"]
    assert one(load("bytes"), plain("hi")).mask is None


def test_byte_level_plain_text_ends_with_eos(byte_level):
    library = tokenizers.Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    for text in TEXTS:
        expected = [*library.encode(text).ids, library.token_to_id("<|endoftext|>")]
        assert one(load(byte_level), plain(text)).ids.tolist() == expected


def test_bos_comes_once_where_the_tokenizer_adds_one(sentencepiece):
    library = tokenizers.Tokenizer.from_file(str(sentencepiece / "tokenizer.json"))
    bos, eos = library.token_to_id("<s>"), library.token_to_id("</s>")
    body = library.encode("The fox", add_special_tokens=False).ids
    assert one(load(sentencepiece), plain("The fox")).ids.tolist() == [bos, *body, eos]
    own = one(load(sentencepiece), plain("<s>The fox"))  # a text that brings it gets no second one
    assert own.begun and own.ids.tolist().count(bos) == 1 and own.ids[0] == bos
    bare = load(sentencepiece, add_bos=False, add_eos=False)
    assert one(bare, plain("The fox")).ids.tolist() == body
    assert bare.file_eos_id == eos


def test_bos_of_a_prompt_is_no_target(sentencepiece):
    encoded = one(load(sentencepiece), answer("The quick", " fox"))
    assert encoded.mask[0] == 0 and encoded.mask[-1] == 1
    assert not encoded.joined


def test_named_bos_and_eos(byte_level):
    tokenizer = load(byte_level, bos_token="<s>", eos_token="</s>")
    ids = one(tokenizer, plain("fox")).ids.tolist()
    library = tokenizers.Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    assert ids == [
        library.token_to_id("<s>"),
        *library.encode("fox").ids,
        library.token_to_id("</s>"),
    ]
    with pytest.raises(PrepareError, match="--eos-token <end>: is no token"):
        load(byte_level, eos_token="<end>")


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("What is the capital of France?", " Paris is."), ("user:\n", "fox\n"), ("Q 🙂", " 日本語")],
)
def test_boundary_where_the_prompt_alone_gives_the_first_ids(kind, prompt, completion, request):
    tokenizer = load(request.getfixturevalue(kind), add_bos=False)
    library = tokenizer._tokenizer
    alone = library.encode(prompt, add_special_tokens=False).ids
    whole = library.encode(prompt + completion, add_special_tokens=False).ids
    assert whole[: len(alone)] == alone  # else the example shows nothing
    encoded = one(tokenizer, answer(prompt, completion))
    assert encoded.ids.tolist() == [*whole, tokenizer.eos_id]
    assert encoded.mask.tolist() == [0] * len(alone) + [1] * (len(whole) - len(alone) + 1)
    assert not encoded.joined


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("The quick bro", "wn fox"),
        ("answer: ", "fox"),
        ("The   ", "12345"),
        ("helpful\n", "\nuser"),
    ],
)
def test_boundary_inside_a_token(kind, prompt, completion, request):
    """The ids of the prompt are those that it has when it stands alone, as it does in use; the
    completion is what remains of the text."""
    folder = request.getfixturevalue(kind)
    tokenizer = load(folder, add_bos=False, add_eos=False)
    alone = tokenizer._tokenizer.encode(prompt, add_special_tokens=False).ids
    whole = tokenizer._tokenizer.encode(prompt + completion, add_special_tokens=False).ids
    encoded = one(tokenizer, answer(prompt, completion))
    assert encoded.joined == (whole[: len(alone)] != alone)
    assert encoded.ids[: len(alone)].tolist() == alone
    assert encoded.mask.tolist() == [0] * len(alone) + [1] * (len(encoded.ids) - len(alone))
    table = tokenizer.vocabulary_bytes()
    text = b"".join(table[i] for i in encoded.ids.tolist()).decode()
    assert text.removeprefix(" ") == prompt + completion


def test_look_ahead_changes_the_prompt_though_no_token_crosses_the_boundary(tmp_path):
    """Three spaces are one run at the end of a text, but two and one before a digit: comparing
    positions in the whole text would miss it."""
    library = byte_level_tokenizer(["a   "] * 50)
    tokenizer = load(save(library, tmp_path, eos_token="<|endoftext|>"), add_eos=False)
    alone, whole = library.encode("Q:   "), library.encode("Q:   12")
    assert 5 in {end for _, end in whole.offsets}  # no token crosses
    assert whole.ids[: len(alone.ids)] != alone.ids
    encoded = one(tokenizer, answer("Q:   ", "12"))
    assert encoded.joined
    assert encoded.ids.tolist() == [*alone.ids, *library.encode("12").ids]
    assert encoded.mask.tolist() == [0] * len(alone.ids) + [1] * len(library.encode("12").ids)


def test_joins_are_counted_and_warned_of(prepare, byte_level):
    records = [
        {"prompt": "The quick bro", "completion": "wn"},
        {"prompt": "Q:\n", "completion": "fox"},
    ]
    data = prepare(records, tokenizer=byte_level)
    assert "in 1 documents the tokenizer merges" in data.outcome.err
    assert [data.target_text(i) for i in range(2)] == ["wn<|endoftext|>", "fox<|endoftext|>"]


def test_many_joins_in_one_document(byte_level):
    """Hundreds of boundaries inside words neither recurse too deep nor lose text."""
    parts = ["bro", "wn "] * 300
    tokenizer = load(byte_level, add_eos=False)
    encoded = one(tokenizer, answer(*parts))
    table = tokenizer.vocabulary_bytes()
    pairs = list(zip(encoded.ids.tolist(), encoded.mask.tolist(), strict=True))
    assert b"".join(table[i] for i, _ in pairs).decode() == "".join(parts)
    assert b"".join(table[i] for i, target in pairs if target).decode() == "wn " * 300


def test_special_tokens_in_the_text_are_warned_of(prepare, byte_level):
    data = prepare(
        [
            {"text": "one <|endoftext|> two"},
            {"text": "three"},
            {"instruction": "<|im_end|>", "output": "a"},
        ],
        "--chat-template", "chatml", tokenizer=byte_level,
    )  # fmt: skip
    assert "2 documents spell a special token" in data.outcome.err


def test_tokenizer_without_end_of_text(tmp_path):
    library = byte_level_tokenizer()
    description = json.loads(library.to_str())
    description["added_tokens"] = []
    for text in ("<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>"):
        index = description["model"]["vocab"].pop(text)
        description["model"]["vocab"][f"unused{index}"] = index
    folder = save(tokenizers.Tokenizer.from_str(json.dumps(description)), tmp_path)
    tokenizer = load(folder)
    assert tokenizer.file_eos_id == -1 and "--eos-token" in tokenizer.warnings[0]
    assert one(tokenizer, plain("fox")).ids.tolist() == library.encode("fox").ids


def test_truncation_and_padding_of_the_file_are_switched_off(tmp_path):
    library = byte_level_tokenizer()
    library.enable_truncation(4)
    library.enable_padding(length=64)
    folder = save(library, tmp_path, eos_token="<|endoftext|>")
    text = "The quick brown fox jumps over the lazy dog. " * 5
    library.no_truncation()
    library.no_padding()
    assert one(load(folder), plain(text)).ids.tolist() == [*library.encode(text).ids, 0]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "no such file"),
        (b"{}", "is no tokenizer.json"),
        (b"\xff\xfe", "is no tokenizer.json"),
        (b'{"model": 3}', "is no tokenizer.json"),
    ],
)
def test_damaged_tokenizers(tmp_path, contents, message):
    if contents is not None:
        (tmp_path / "tokenizer.json").write_bytes(contents)
    with pytest.raises(PrepareError, match=message) as caught:
        load(tmp_path)
    assert caught.value.code == 65 and "\n" not in str(caught.value)


def test_byte_map_is_that_of_the_library():
    table = vocabulary.byte_of_character()
    assert sorted(table.values()) == list(range(256))
    assert set(table) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_vocabulary_spells_every_text(kind, request):
    tokenizer = load(request.getfixturevalue(kind), add_bos=False, add_eos=False)
    table = tokenizer.vocabulary_bytes()
    assert len(table) == tokenizer.vocab_size
    for text in TEXTS:
        spelt = b"".join(table[i] for i in one(tokenizer, plain(text)).ids.tolist()).decode()
        assert spelt == (" " * (kind == "sentencepiece" and text[0] != " ") + text)


def test_vocabulary_of_special_and_missing_ids():
    library = byte_level_tokenizer()
    description = json.loads(library.to_str())
    vocab = description["model"]["vocab"]
    last = max(vocab, key=vocab.get)
    vocab[last] += 3  # leaves three ids without a token
    library = tokenizers.Tokenizer.from_str(json.dumps(description))
    library.add_special_tokens(["<é>"])
    table = vocabulary.bytes_of_tokens(library)
    assert table[0] == b"<|endoftext|>"
    assert table[library.token_to_id("<é>")] == "<é>".encode()
    used = set(library.get_vocab(with_added_tokens=True).values())
    missing = set(range(len(table))) - used
    assert len(missing) >= 2 and all(table[i] == b"" for i in missing)


def test_word_pieces_and_word_ends():
    clip_kind = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={"a": 0, "a</w>": 1}, merges=[], end_of_word_suffix="</w>")
    )
    assert vocabulary.bytes_of_tokens(clip_kind) == [b"a", b"a "]


def test_arrays_of_the_table():
    data, offsets = vocabulary.as_arrays([b"ab", b"", b"\xff"])
    assert data.tolist() == [97, 98, 255] and offsets.tolist() == [0, 2, 2, 3]
    assert offsets.dtype == numpy.int64


class Counting:
    """A tokenizer that counts the characters it is given."""

    def __init__(self, tokenizer):
        self._tokenizer, self.characters = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def encode(self, text, **options):
        self.characters += len(text)
        return self._tokenizer.encode(text, **options)

    def encode_batch(self, texts, **options):
        self.characters += sum(map(len, texts))
        return self._tokenizer.encode_batch(texts, **options)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize(
    "ends", [("Q: ", "\nA:"), ("Q:", " "), ("<|im_start|>user\n", "<|im_end|>\n"), ("bro", "wn")]
)
def test_the_work_is_linear_in_the_number_of_boundaries(kind, ends, request):
    """Clean boundaries, with special tokens near them and without, and such as a token crosses."""
    tokenizer = load(request.getfixturevalue(kind))
    counting = tokenizer._tokenizer = Counting(tokenizer._tokenizer)
    work = []
    for turns in (60, 180):
        parts = [part for i in range(turns) for part in (f"{ends[0]}what is {i}?", f"{ends[1]}it is {i}.\n")]
        counting.characters = 0
        one(tokenizer, answer(*parts))
        work.append(counting.characters / sum(map(len, parts)))
    assert work[1] < 1.3 * work[0], work
